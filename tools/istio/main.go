// Command istio reads Istio's objects as YAML from stdin and says what is wrong with them: kinds that
// Istio doesn't have, fields that its own types don't know, values of another type. Other objects are
// passed over. Nothing that needs a cluster is looked at: whether hosts exist, and what the
// definitions of its resources (CRDs) demand beyond types.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1"
	security "istio.io/api/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// What the chart makes, by API version and kind.
var specs = map[string]func() proto.Message{
	"networking.istio.io/v1 DestinationRule":   func() proto.Message { return new(networking.DestinationRule) },
	"networking.istio.io/v1 VirtualService":    func() proto.Message { return new(networking.VirtualService) },
	"security.istio.io/v1 AuthorizationPolicy": func() proto.Message { return new(security.AuthorizationPolicy) },
	"security.istio.io/v1 PeerAuthentication":  func() proto.Message { return new(security.PeerAuthentication) },
}

type object struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Spec            map[string]any    `json:"spec"`
}

func main() {
	count, problems, err := check(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "istio:", err)
		os.Exit(2)
	}
	for _, problem := range problems {
		fmt.Println(problem)
	}
	fmt.Printf("%d of Istio's objects, %d problems\n", count, len(problems))
	if len(problems) > 0 || count == 0 {
		os.Exit(1)
	}
}

func check(input io.Reader) (count int, problems []string, err error) {
	documents := yamlutil.NewYAMLReader(bufio.NewReader(input))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return count, problems, nil
		}
		if err != nil {
			return 0, nil, err
		}
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal(document, &kind); err != nil {
			return 0, nil, err
		}
		if group, _, _ := strings.Cut(kind.APIVersion, "/"); !strings.HasSuffix(group, ".istio.io") {
			continue
		}
		count++
		if problem := refused(document, kind); problem != "" {
			problems = append(problems, problem)
		}
	}
}

func refused(document []byte, kind metav1.TypeMeta) string {
	what := kind.APIVersion + " " + kind.Kind
	empty, known := specs[what]
	if !known {
		return what + ": not one of the kinds that the chart makes"
	}
	var found object
	if err := yaml.UnmarshalStrict(document, &found); err != nil {
		return what + ": " + err.Error()
	}
	name := what + " " + found.Metadata.Name + ": "
	spec, err := yaml.Marshal(found.Spec)
	if err != nil {
		return name + err.Error()
	}
	if spec, err = yaml.YAMLToJSON(spec); err != nil {
		return name + err.Error()
	}
	if err := protojson.Unmarshal(spec, empty()); err != nil { // strict: unknown fields are errors
		return name + err.Error()
	}
	return ""
}
