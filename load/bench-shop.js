// The load of `provectl bench`: sends the requests of a plan (prove.bench.load writes it) in order,
// its targets in turn, and says how long each target's took.
import exec from "k6/execution";
import http from "k6/http";
import { SharedArray } from "k6/data";
import { Counter, Trend } from "k6/metrics";

const plan = JSON.parse(open(`${__ENV.PLAN}/plan.json`));
// Texts, parsed when they are sent: one copy for all virtual users.
const targets = plan.targets.map(
  (target, n) => new SharedArray(target, () => JSON.parse(open(`${__ENV.PLAN}/${n}.json`))),
);
const latencies = plan.targets.map((_, n) => new Trend(`latency_${n}`, true));
const failures = plan.targets.map((_, n) => new Counter(`failed_${n}`));

export const options = {
  scenarios: { load: plan.scenario },
  discardResponseBodies: true,
  systemTags: ["status"], // what isn't asked for costs CPU all the same
  summaryTrendStats: ["med", "p(95)", "p(99)", "max", "count"],
};

function send(request) {
  const params = { headers: request.headers, timeout: "30s" };
  const body = request.body === undefined ? null : JSON.stringify(request.body);
  const response = http.request(request.method, request.url, body, params);
  const ok = response.status === request.expect;
  if (!ok) {
    console.warn(`${request.method} ${request.url}: ${response.status} ${response.error}`);
  }
  return { ok, ms: response.timings.duration };
}

export default function () {
  const turn = exec.scenario.iterationInTest;
  const n = turn % targets.length;
  const round = Math.floor(turn / targets.length);
  const text = targets[n][round % targets[n].length];
  const request = JSON.parse(text.replaceAll("$id", `${plan.id}-${turn}`));
  const { ok, ms } = send(request);
  latencies[n].add(ms);
  failures[n].add(ok ? 0 : 1);
  if (ok && request.then) {
    failures[n].add(send(request.then).ok ? 0 : 1);
  }
}

export function handleSummary(data) {
  return { [__ENV.SUMMARY]: JSON.stringify(data.metrics) };
}
