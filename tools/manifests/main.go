// Command manifests reads Kubernetes objects as YAML from stdin and says what a cluster would refuse:
// unknown kinds, API versions and fields (strictly, against the API of the oldest release we support),
// and pods that Pod Security's `restricted` standard does not admit, by Kubernetes' own evaluator.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

// version is of Kubernetes, whose API is checked against; set by the build.
var version = "1.31"

func main() {
	if len(os.Args) > 1 {
		fmt.Println("manifests for Kubernetes", version)
		return
	}
	count, problems, err := check(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "manifests:", err)
		os.Exit(2)
	}
	for _, problem := range problems {
		fmt.Println(problem)
	}
	fmt.Printf("%d objects, %d problems\n", count, len(problems))
	if len(problems) > 0 || count == 0 {
		os.Exit(1)
	}
}

func check(input io.Reader) (count int, problems []string, err error) {
	decoder := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme,
		json.SerializerOptions{Yaml: true, Strict: true})
	restricted, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return 0, nil, err
	}
	documents := yamlutil.NewYAMLReader(bufio.NewReader(input))
	seen := map[string]bool{}
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return count, problems, nil
		}
		if err != nil {
			return 0, nil, err
		}
		object, kind, err := decoder.Decode(document, nil, nil)
		if runtime.IsMissingKind(err) && empty(document) {
			continue
		}
		count++
		if err != nil {
			problems = append(problems, err.Error())
			continue
		}
		meta := object.(metav1.Object)
		name := fmt.Sprintf("%s %s", kind.Kind, meta.GetName())
		if seen[name] {
			problems = append(problems, name+": is there twice")
		}
		seen[name] = true
		for _, why := range forbidden(restricted, object) {
			problems = append(problems, name+": "+why)
		}
	}
}

func empty(document []byte) bool {
	var content map[string]any
	return yamlutil.Unmarshal(document, &content) == nil && len(content) == 0
}

// forbidden says what of an object's pods `restricted` does not admit.
func forbidden(restricted policy.Evaluator, object runtime.Object) []string {
	var meta metav1.ObjectMeta
	var spec corev1.PodSpec
	switch o := object.(type) {
	case *corev1.Pod:
		meta, spec = o.ObjectMeta, o.Spec
	case *appsv1.Deployment:
		meta, spec = o.Spec.Template.ObjectMeta, o.Spec.Template.Spec
	case *appsv1.StatefulSet:
		meta, spec = o.Spec.Template.ObjectMeta, o.Spec.Template.Spec
	case *appsv1.DaemonSet:
		meta, spec = o.Spec.Template.ObjectMeta, o.Spec.Template.Spec
	case *batchv1.Job:
		meta, spec = o.Spec.Template.ObjectMeta, o.Spec.Template.Spec
	case *batchv1.CronJob:
		meta, spec = o.Spec.JobTemplate.Spec.Template.ObjectMeta, o.Spec.JobTemplate.Spec.Template.Spec
	default:
		return nil
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	var reasons []string
	for _, result := range restricted.EvaluatePod(level, &meta, &spec) {
		if !result.Allowed {
			reasons = append(reasons, fmt.Sprintf("%s (%s)", result.ForbiddenReason, result.ForbiddenDetail))
		}
	}
	return reasons
}
