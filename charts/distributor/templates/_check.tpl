{{- /* What values.schema.json can't say: values that don't go together. Each message names the value and the remedy. */ -}}
{{- define "distributor.check" -}}
{{- /* Versions are only asked for where there is a cluster: offline, helm knows what it was built with, not what it is for. */ -}}
{{- $connected := .Capabilities.APIVersions.Has "v1/Pod" -}}
{{- if and $connected (semverCompare "<1.29.0-0" .Capabilities.KubeVersion.Version) -}}
  {{- fail (printf "Kubernetes %s has no native sidecars: chart distributor needs 1.29 or later" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $policies := and .Values.admissionPolicy.enabled (include "distributor.hasPolicies" .) -}}
{{- if and $connected $policies (not (.Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")) -}}
  {{- fail (printf "Kubernetes %s has no ValidatingAdmissionPolicy, 1.30 was the first that had: set admissionPolicy.enabled=false to go without" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $tickets := eq .Values.semaphore.engine "tickets" -}}
{{- $semaphores := include "distributor.semaphores" . | fromJsonArray -}}
{{- $names := include "distributor.semaphoreNames" . | fromJsonArray -}}
{{- if ne (len $names) (len (uniq $names)) -}}
  {{- fail (printf "semaphores: give each a name of its own; now they are %s, the first of them from semaphore.name" (join ", " $names)) -}}
{{- end -}}
{{- if and $tickets (ne (int .Values.sidecar.priority) 0) -}}
  {{- fail (printf "sidecar.priority is %v, but tickets are served in the order in which they were drawn: leave it out, or set semaphore.engine=annotations" .Values.sidecar.priority) -}}
{{- end -}}
{{- range $semaphore := $semaphores -}}
  {{- if and $tickets (gt (len .name) 63) -}}
    {{- fail (printf "semaphore %s: with semaphore.engine=tickets its name is the value of a label, too: give it one of 63 characters at most" .name) -}}
  {{- end -}}
  {{- $total := 0 -}}
  {{- range $resource, $count := .wants -}}
    {{- $total = add $total (int64 $count) -}}
    {{- $capacity := int64 (dig $resource 0 (default dict $semaphore.capacity)) -}}
    {{- if and $semaphore.create (lt $capacity (int64 $count)) -}}
      {{- fail (printf "semaphore %s: wants.%s is %d and capacity.%s is %d, so that nobody would ever be served: raise the capacity, or want less" $semaphore.name $resource (int64 $count) $resource $capacity) -}}
    {{- end -}}
  {{- end -}}
  {{- if and $tickets .mode -}}
    {{- fail (printf "semaphore %s: mode is %s, and tickets have no modes: leave it out, or set semaphore.engine=annotations" .name .mode) -}}
  {{- end -}}
  {{- $remedy := "set semaphore.engine=tickets, which needs no mode; or let Ansible's k8s_semaphore (the role does) own the ConfigMap with mode v2, and set create=false and mode=v2 here" -}}
  {{- if and .create (eq (default "" .mode) "v2") -}}
    {{- fail (printf "semaphore %s: mode is v2 and create is true, but a chart can't write what v2 needs without overwriting who holds at the next upgrade: %s" .name $remedy) -}}
  {{- end -}}
  {{- if and (not $tickets) (gt $total 1) (or .create (eq (default "" .mode) "v1")) -}}
    {{- fail (printf "semaphore %s: wants is %s, but in mode v1 a Pod can claim one resource, once: %s" .name (toJson .wants) $remedy) -}}
  {{- end -}}
{{- end -}}
{{- if has (include "distributor.serviceAccount" .) .Values.admissionPolicy.exempt -}}
  {{- fail (printf "admissionPolicy.exempt names %s, the sidecars' own ServiceAccount: give the Pods that act for others one of their own" (include "distributor.serviceAccount" .)) -}}
{{- end -}}
{{- include "distributor.checkEngine" . -}}
{{- end -}}

{{- /* The two engines know nothing of each other: while Pods of both run, a permit is given twice. */ -}}
{{- define "distributor.checkEngine" -}}
{{- $now := lookup "apps/v1" .Values.workload.kind .Release.Namespace (include "distributor.fullname" .) -}}
{{- if and .Values.workload.enabled $now (gt (int (dig "status" "replicas" 0 $now)) 0) -}}
  {{- $engine := "annotations" -}}
  {{- range $container := dig "spec" "template" "spec" "initContainers" list $now -}}
    {{- range dig "env" list $container -}}
      {{- if eq .name "MUSTER_ENGINE" -}}{{- $engine = .value -}}{{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if ne $engine .Values.semaphore.engine -}}
    {{- fail (printf "semaphore.engine is %s, and %v Pods run with %s: the two don't see each other, so a permit would be given twice. First scale %s %s to 0, or uninstall the release" .Values.semaphore.engine $now.status.replicas $engine (lower .Values.workload.kind) (include "distributor.fullname" .)) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
