{{- /* 46 characters: with -cloud and a StatefulSet's revision behind it, it still fits into a label. */ -}}
{{- define "vm-operator.fullname" -}}
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

{{- define "vm-operator.cloud" -}}
{{ include "vm-operator.fullname" . }}-cloud
{{- end -}}

{{- define "vm-operator.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "vm-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: name the existing ServiceAccount, or set serviceAccount.create=true" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* (list scope component) */ -}}
{{- define "vm-operator.selector" -}}
{{- $scope := index . 0 -}}
app.kubernetes.io/name: {{ default $scope.Chart.Name $scope.Values.nameOverride }}
app.kubernetes.io/instance: {{ $scope.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* (list scope component) */ -}}
{{- define "vm-operator.labels" -}}
{{- $scope := index . 0 -}}
{{ include "vm-operator.selector" . }}
app.kubernetes.io/version: {{ $scope.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: muster
app.kubernetes.io/managed-by: {{ $scope.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $scope.Chart.Name $scope.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "vm-operator.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- /* Cluster-wide names are unique by the namespace, whose name has no dot. */ -}}
{{- define "vm-operator.clusterName" -}}
{{ include "vm-operator.fullname" . }}.{{ .Release.Namespace }}
{{- end -}}

{{- /* All that are ever written, as JSON: the leader's Lease or, of each replica, its own. */ -}}
{{- define "vm-operator.leases" -}}
{{- $name := include "vm-operator.fullname" . -}}
{{- $leases := list -}}
{{- if eq .Values.replicasMode "leader" -}}
{{- $leases = append $leases $name -}}
{{- else -}}
{{- range $ordinal := until (int .Values.maxReplicas) -}}
{{- $leases = append $leases (printf "%s-%s-%d" $name $name $ordinal) -}}
{{- end -}}
{{- end -}}
{{- toJson $leases -}}
{{- end -}}

{{- /* There is a token: given, or for the cloud that is deployed here. */ -}}
{{- define "vm-operator.tokenSecret" -}}
{{- if or .Values.cloud.enabled .Values.cloud.token.existingSecret -}}
{{- default (include "vm-operator.cloud" .) .Values.cloud.token.existingSecret -}}
{{- end -}}
{{- end -}}

{{- /* By variable and not by name: there are clusters without DNS. The Service is there before the Pod. */ -}}
{{- define "vm-operator.cloudUrl" -}}
{{- $variable := include "vm-operator.cloud" . | upper | replace "-" "_" -}}
{{- default (printf "http://$(%s_SERVICE_HOST):%v" $variable .Values.cloud.port) .Values.cloud.url -}}
{{- end -}}

{{- define "vm-operator.tokenVolume" -}}
- name: cloud-token
  secret:
    secretName: {{ include "vm-operator.tokenSecret" . }}
    defaultMode: 0440
    items:
      - key: {{ .Values.cloud.token.key }}
        path: token
{{- end -}}

{{- define "vm-operator.tokenMount" -}}
- name: cloud-token
  mountPath: /etc/muster/cloud
  readOnly: true
{{- end -}}

{{- /* The restricted Pod Security Standard, and a root file system that is read-only. */ -}}
{{- define "vm-operator.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* The operator's own Pods, as a label selector on one line. */ -}}
{{- define "vm-operator.podSelector" -}}
{{- $parts := list -}}
{{- range $key, $value := include "vm-operator.selector" (list . "operator") | fromYaml -}}
{{- $parts = append $parts (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- join "," $parts -}}
{{- end -}}

{{- /* How the replicas divide the work; those of two ways don't see each other. (Of other layouts of shards they do.) */ -}}
{{- define "vm-operator.divided" -}}
{{- if eq .Values.replicasMode "leader" -}}
leader
{{- else -}}
{{ printf "shards by %s" .Values.sharding.by }}
{{- end -}}
{{- end -}}
