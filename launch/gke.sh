#!/usr/bin/env bash
# A TPU slice of a GKE cluster, as a JobSet: kubectl starts it, Kubernetes starts it again after a
# preemption, and this script waits for its end and passes on how it ended.
#   JOB=slerp IMAGE=REGISTRY/sphere_jax:tpu CLAIM=shared ACCELERATOR=tpu-v5-lite-podslice \
#       TOPOLOGY=4x4 HOSTS=4 CHIPS=4 launch/gke.sh --config=configs/imagenet_slerp.py \
#       --workdir=/data/runs/slerp
# IMAGE is of launch/Dockerfile.tpu. CLAIM is a PersistentVolumeClaim that many nodes can write,
# mounted at /data. CHIPS are those of one host. --print shows the JobSet and starts nothing.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "$0")/common.sh"
for each in JOB IMAGE CLAIM ACCELERATOR TOPOLOGY HOSTS CHIPS; do
  [[ ${!each:-} ]] || refuse "set $each; the first lines of this script show all of them"
done
print=''
if [[ ${1:-} == --print ]]; then
  print=yes
  shift
fi
compiled=$(compiled_folder "$@")

quoted() { printf "'%s'" "${1//\'/\'\'}"; } # for YAML
arguments() {
  local each
  for each; do printf '                - %s\n' "$(quoted "$each")"; done
}

manifest() {
  cat <<YAML
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: $(quoted "$JOB")
  annotations: # all hosts in one slice
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: ${RETRIES:-100}
    rules:
    # A run that failed or was refused would do so again. Else, as after a preemption, it resumes.
    - action: FailJobSet
      onJobFailureReasons: [PodFailurePolicy]
  replicatedJobs:
  - name: hosts
    replicas: 1
    template:
      spec:
        parallelism: $HOSTS
        completions: $HOSTS
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onExitCodes: {containerName: run, operator: In, values: [1, 2]}
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: $(quoted "$ACCELERATOR")
              cloud.google.com/gke-tpu-topology: $(quoted "$TOPOLOGY")
            containers:
            - name: run
              image: $(quoted "$IMAGE")
              command: [launch/in_container.sh]
              args:
$(arguments "$@")
              env:
              - {name: SPHERE_JAX_POD, value: '1'}
              - {name: TF_CPP_MIN_LOG_LEVEL, value: '3'}
              - {name: COMMAND, value: $(quoted "${COMMAND:-main}")}
              - {name: SPHERE_JAX_WAIT, value: $(quoted "$SPHERE_JAX_WAIT")}
              - {name: HOSTS, value: '$HOSTS'}
              - {name: CHIPS, value: '$CHIPS'}
              - {name: JAX_COMPILATION_CACHE_DIR, value: $(quoted "$compiled")}
              resources:
                limits: {google.com/tpu: $CHIPS}
              volumeMounts:
              - {name: data, mountPath: /data}
            volumes:
            - name: data
              persistentVolumeClaim: {claimName: $(quoted "$CLAIM")}
YAML
}

if [[ $print ]]; then
  manifest "$@"
  exit
fi
command -v kubectl >/dev/null || refuse "there is no kubectl here: install it, and connect it to the cluster"
kubectl get crd jobsets.jobset.x-k8s.io >/dev/null || refuse "the cluster has no JobSet: install it (kubernetes-sigs/jobset)"
kubectl get pvc "$CLAIM" >/dev/null || refuse "the cluster has no claim $CLAIM: make one that many nodes can write"
nodes=$(kubectl get nodes --no-headers --output=name --selector \
  "cloud.google.com/gke-tpu-accelerator=$ACCELERATOR,cloud.google.com/gke-tpu-topology=$TOPOLOGY" | grep -c .) || true
if ((nodes < HOSTS)) && [[ ! ${AUTOSCALED:-} ]]; then
  refuse "the cluster has $nodes nodes of $ACCELERATOR $TOPOLOGY, not $HOSTS: add a node pool, or set AUTOSCALED=1 where one comes by itself"
fi
if kubectl get jobset "$JOB" >/dev/null 2>&1; then
  refuse "there is a JobSet $JOB: 'kubectl delete jobset $JOB' ends it, and the same command resumes"
fi
manifest "$@" | kubectl apply --filename=-

# state: Completed, Failed or nothing yet.
state() { kubectl get jobset "$JOB" --output=jsonpath='{.status.terminalState}'; }
exit_codes() {
  kubectl get pods --selector="jobset.sigs.k8s.io/jobset-name=$JOB" --output \
    jsonpath='{range .items[*]}{.status.containerStatuses[0].state.terminated.exitCode}{"\n"}{end}'
}
# shellcheck disable=SC2329 # by the trap
stop() {
  say "stopping $JOB: its hosts save first; the same command resumes"
  kubectl delete jobset "$JOB" --wait=true
  exit 130
}
trap stop INT TERM
say "started; 'kubectl logs --follow job/$JOB-hosts-0' shows the first host"
found=''
while [[ ! $found ]]; do
  sleep "${POLL:-30}" &
  wait "$!"
  found=$(state) || found='' # the network may fail
done
if [[ $found == Completed ]]; then
  say "finished"
  exit 0
fi
codes=$(exit_codes) || codes='' # the network may fail
code=75
for each in 1 2; do
  if grep -qx "$each" <<<"$codes"; then code=$each; fi
done
kubectl logs "job/$JOB-hosts-0" --tail=20 >&2 || true
say "failed with exit code $code; its last lines are above"
exit "$code"
