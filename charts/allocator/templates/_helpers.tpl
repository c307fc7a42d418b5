{{- /* 46 characters: with a StatefulSet's revision behind it, it still fits into a label. */ -}}
{{- define "allocator.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 46 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 46 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "allocator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "allocator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the existing ServiceAccount, or set serviceAccount.create=true" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* (list scope component) */ -}}
{{- define "allocator.selector" -}}
{{- $scope := index . 0 -}}
app.kubernetes.io/name: {{ default $scope.Chart.Name $scope.Values.nameOverride }}
app.kubernetes.io/instance: {{ $scope.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* (list scope component) */ -}}
{{- define "allocator.labels" -}}
{{- $scope := index . 0 -}}
{{ include "allocator.selector" . }}
app.kubernetes.io/version: {{ $scope.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: muster
app.kubernetes.io/managed-by: {{ $scope.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $scope.Chart.Name $scope.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "allocator.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- /* Cluster-wide names are unique by the namespace, whose name has no dot. */ -}}
{{- define "allocator.clusterName" -}}
{{ include "allocator.fullname" . }}.{{ .Release.Namespace }}
{{- end -}}

{{- define "allocator.scheme" -}}
{{ ternary "https" "http" (ne .Values.tls.secret "") }}
{{- end -}}

{{- /* The text of the template. The example's Pods have the image of this release. */ -}}
{{- define "allocator.template" -}}
{{- if .Values.template -}}
{{ .Values.template }}
{{- else -}}
{{ regexReplaceAll "image: muster(:\\S+)?\n" (.Files.Get "examples/key-value.yaml") (printf "image: %s\n" (include "allocator.image" .)) }}
{{- end -}}
{{- end -}}

{{- /* The resources that hold objects of the kinds that a template may make, as a mapping from groups, in JSON. */ -}}
{{- define "allocator.resources" -}}
{{- $groups := dict -}}
{{- range $each := .Values.allowedKinds -}}
{{- $parts := splitList "/" $each -}}
{{- $group := ternary (first $parts) "" (eq (len $parts) 3) -}}
{{- $kind := last $parts | lower -}}
{{- $plural := printf "%ss" $kind -}}
{{- if hasSuffix "y" $kind -}}
{{- $plural = printf "%sies" (trimSuffix "y" $kind) -}}
{{- else if hasSuffix "s" $kind -}}
{{- $plural = printf "%ses" $kind -}}
{{- end -}}
{{- $_ := set $groups $group (append (get $groups $group | default list) $plural) -}}
{{- end -}}
{{- toJson $groups -}}
{{- end -}}

{{- /* The restricted Pod Security Standard, and a root file system that is read-only. */ -}}
{{- define "allocator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* Its own Pods, as a label selector on one line. */ -}}
{{- define "allocator.podSelector" -}}
{{- $parts := list -}}
{{- range $key, $value := include "allocator.selector" (list . "server") | fromYaml -}}
{{- $parts = append $parts (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- join "," $parts -}}
{{- end -}}
