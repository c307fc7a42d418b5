{{- define "distributor.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "distributor.semaphore" -}}
{{- default (include "distributor.fullname" .) .Values.semaphore.name -}}
{{- end -}}

{{- /* All semaphores, as JSON: a list of {name, mode, create, capacity, wants}, those of `semaphores` after the first. */ -}}
{{- define "distributor.semaphores" -}}
{{- $all := list (merge (dict "name" (include "distributor.semaphore" .)) (omit .Values.semaphore "name" "engine")) -}}
{{- range .Values.semaphores -}}
{{- $all = append $all (dict "name" .name "mode" (dig "mode" "" .) "create" (dig "create" true .) "capacity" (dig "capacity" dict .) "wants" (dig "wants" dict .)) -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{- define "distributor.semaphoreNames" -}}
{{- $names := list -}}
{{- range include "distributor.semaphores" . | fromJsonArray -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{- /* What the sidecar is told: NAME[:RESOURCE=COUNT,…], one after the other. */ -}}
{{- define "distributor.claims" -}}
{{- $claims := list -}}
{{- range include "distributor.semaphores" . | fromJsonArray -}}
{{- $wants := list -}}
{{- range $resource, $count := .wants -}}
{{- $wants = append $wants (printf "%s=%d" $resource (int64 $count)) -}}
{{- end -}}
{{- $claims = append $claims (printf "%s%s%s" .name (ternary ":" "" (gt (len $wants) 0)) (join "," $wants)) -}}
{{- end -}}
{{- join " " $claims -}}
{{- end -}}

{{- define "distributor.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "distributor.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the existing ServiceAccount, or set serviceAccount.create=true" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "distributor.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "distributor.labels" -}}
{{ include "distributor.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: workload
app.kubernetes.io/part-of: muster
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* Not empty where there is something for an admission policy to do. */ -}}
{{- define "distributor.hasPolicies" -}}
{{- if or (eq .Values.semaphore.engine "tickets") .Values.sidecar.annotatePod -}}yes{{- end -}}
{{- end -}}

{{- /* (list scope kind): unique in the cluster, for a namespace's name has no dot. */ -}}
{{- define "distributor.policyName" -}}
{{- $scope := index . 0 -}}
{{ include "distributor.fullname" $scope }}.{{ index . 1 }}.{{ $scope.Release.Namespace }}
{{- end -}}

{{- define "distributor.policyLabels" -}}
{{ include "distributor.labels" . }}
muster.dev/namespace: {{ .Release.Namespace }}
{{- end -}}

{{- /* The users that admissionPolicy.exempt means, as JSON. */ -}}
{{- define "distributor.exempt" -}}
{{- $users := list -}}
{{- range .Values.admissionPolicy.exempt -}}
{{- $users = append $users (printf "system:serviceaccount:%s:%s" $.Release.Namespace .) -}}
{{- end -}}
{{- toJson $users -}}
{{- end -}}
