{{- /* What values.schema.json can't say: values that don't go together. Each message names the value and the remedy. */ -}}
{{- define "vm-operator.check" -}}
{{- /* Versions are only asked for where there is a cluster: offline, helm knows what it was built with, not what it is for. */ -}}
{{- $connected := .Capabilities.APIVersions.Has "v1/Pod" -}}
{{- if and $connected (semverCompare "<1.28.0-0" .Capabilities.KubeVersion.Version) -}}
  {{- fail (printf "Kubernetes %s does not label Pods with their ordinal: chart vm-operator needs 1.28 or later" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if gt (int .Values.replicas) (int .Values.maxReplicas) -}}
  {{- fail (printf "replicas is %d and maxReplicas is %d: raise maxReplicas, too" (int .Values.replicas) (int .Values.maxReplicas)) -}}
{{- end -}}
{{- if not (or .Values.cloud.enabled .Values.cloud.url) -}}
  {{- fail "cloud.url is empty and cloud.enabled is false: say where the machines are to be made" -}}
{{- end -}}
{{- include "vm-operator.checkDivided" . -}}
{{- end -}}

{{- /* A rolling update from one way to the other would have Pods of both at work on the same objects. */ -}}
{{- define "vm-operator.checkDivided" -}}
{{- $now := lookup "apps/v1" "StatefulSet" .Release.Namespace (include "vm-operator.fullname" .) -}}
{{- $divided := dig "metadata" "annotations" "muster.dev/divided" "" $now -}}
{{- if and $divided (gt (int (dig "status" "replicas" 0 $now)) 0) (ne $divided (include "vm-operator.divided" .)) -}}
  {{- fail (printf "replicasMode and sharding.by make it `%s`, and %v Pods run with `%s`: the two don't see each other, so an object would have two of them at work. First scale statefulset %s to 0" (include "vm-operator.divided" .) $now.status.replicas $divided (include "vm-operator.fullname" .)) -}}
{{- end -}}
{{- end -}}
