{{- define "distributor.rbac" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ include "distributor.fullname" . }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "distributor.labels" . | nindent 4 }}
rules:
  {{- if eq .Values.semaphore.engine "tickets" }}
  # A ticket is a Lease whose name the Pod's uid makes. RBAC can't say that; the admission policy does.
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [get, list, watch, create, delete]
  # The semaphore's own: which capacity is in force, and whose Pod has ended.
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    resourceNames: {{ include "distributor.semaphoreNames" . }}
    verbs: [update]
  {{- else }}
  # The semaphores, and no other. List and watch are allowed because they ask for metadata.name=….
  - apiGroups: [""]
    resources: [configmaps]
    resourceNames: {{ include "distributor.semaphoreNames" . }}
    verbs: [get, list, watch, update]
  {{- end }}
  # Who holds is a Pod: its end ends the claim.
  - apiGroups: [""]
    resources: [pods]
    verbs: [get, list, watch{{ if .Values.sidecar.annotatePod }}, patch{{ end }}]
  - apiGroups: [""]
    resources: [events]
    verbs: [create]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ include "distributor.fullname" . }}
  namespace: {{ .Release.Namespace }}
  labels: {{- include "distributor.labels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "distributor.fullname" . }}
subjects:
  - kind: ServiceAccount
    name: {{ include "distributor.serviceAccount" . }}
    namespace: {{ .Release.Namespace }}
{{- end -}}
