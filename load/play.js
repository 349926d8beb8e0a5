// Plays the plan that `provectl load` writes. One arrival is one request, sent when it is due
// whether or not earlier ones were answered (open loop).
//
// RUN, from the environment, is JSON:
//   plan      file of [{operation, path, body?, at_ms?}]
//   summary   file the figures are written to
//   shop      base URLs {products, orders}
//   id        unique for this run: makes idempotency keys fresh
//   scenario  the k6 scenario; `shared-iterations` sends each request at its at_ms
import exec from 'k6/execution';
import http from 'k6/http';
import { sleep } from 'k6';
import { SharedArray } from 'k6/data';
import { Counter, Trend } from 'k6/metrics';

const run = JSON.parse(__ENV.RUN);
// One copy for all virtual users.
const plan = new SharedArray('plan', () => JSON.parse(open(run.plan)));
const LATE_MS = 1000;

export const options = {
  scenarios: { play: run.scenario },
  // Answers are told by their status alone; tags nobody reads would cost CPU.
  discardResponseBodies: true,
  systemTags: [],
  summaryTrendStats: ['count', 'med', 'p(95)', 'p(99)', 'max'],
};

const operations = {};
for (const name of ['list', 'search', 'item', 'checkout']) {
  operations[name] = {
    ms: new Trend(`${name}_ms`, true),
    requests: new Counter(`${name}_requests`),
    failures: new Counter(`${name}_failures`),
  };
}
// Keys are fresh, so a 409 can only be a shortage.
const outcomes = {
  201: new Counter('outcome_confirmed'),
  202: new Counter('outcome_unsettled'),
  402: new Counter('outcome_declined'),
  409: new Counter('outcome_short'),
};
const failed = {
  0: new Counter('failed_no_answer'),
  4: new Counter('failed_4xx'),
  5: new Counter('failed_5xx'),
};
const failedOtherwise = new Counter('failed_other');
const late = new Counter('late');

export default function () {
  const n = exec.scenario.iterationInTest;
  const request = plan[n % plan.length];
  if (request.at_ms !== undefined) {
    awaitDue(exec.scenario.startTime + request.at_ms);
  }
  const { ms, requests, failures } = operations[request.operation];
  const answer = send(request, n);
  requests.add(1);
  if (answer.status !== 0) {
    ms.add(answer.timings.duration);
  }
  if (request.operation === 'checkout' && outcomes[answer.status]) {
    outcomes[answer.status].add(1);
  } else if (request.operation === 'checkout' || answer.status !== 200) {
    failures.add(1);
    (failed[Math.floor(answer.status / 100)] || failedOtherwise).add(1);
  }
}

function send(request, n) {
  if (request.body === undefined) {
    return http.get(run.shop.products + request.path);
  }
  return http.post(run.shop.orders + request.path, request.body, {
    headers: { 'Content-Type': 'application/json', 'Idempotency-Key': `${run.id}-${n}` },
  });
}

function awaitDue(due) {
  const wait = due - Date.now();
  if (wait > 0) {
    sleep(wait / 1000);
  } else if (-wait > LATE_MS) {
    late.add(1);
  }
}

export function handleSummary(data) {
  const figures = { metrics: data.metrics, duration_ms: data.state.testRunDurationMs };
  return { [run.summary]: JSON.stringify(figures) };
}
