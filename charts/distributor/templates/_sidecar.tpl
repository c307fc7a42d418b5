{{- /*
The parts that other charts take, too. Each is given the scope of this chart: there `.`, in a parent chart
`.Subcharts.distributor` (docs/distributor.md shows a whole one).

  distributor.sidecar          an entry for the Pod's initContainers
  distributor.sidecarVolumes   entries for its volumes
  distributor.claimMount       an entry for the app's volumeMounts: the claim file, read only
  distributor.claimFile        the path of that file
  distributor.serviceAccount   the name of the ServiceAccount that the Pod runs as
  distributor.rbac             Role and RoleBinding for that ServiceAccount; this chart has them itself unless rbac.create=false
*/ -}}
{{- define "distributor.sidecar" -}}
- name: muster
  restartPolicy: Always # a native sidecar: there before the app, and until after it
  image: {{ include "distributor.image" . }}
  imagePullPolicy: {{ .Values.sidecar.image.pullPolicy }}
  args: [distributor, run{{ if .Values.sidecar.verbose }}, -v{{ end }}]
  env:
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    - name: POD_UID
      valueFrom: {fieldRef: {fieldPath: metadata.uid}}
    - name: MUSTER_NAMESPACE
      valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
    - name: MUSTER_ENGINE
      value: {{ .Values.semaphore.engine }}
    - name: MUSTER_CONFIGMAP
      value: {{ include "distributor.claims" . | quote }}
    {{- with .Values.sidecar.resource }}
    - name: MUSTER_RESOURCE
      value: {{ . | quote }}
    {{- end }}
    - name: MUSTER_PRIORITY
      value: {{ .Values.sidecar.priority | quote }}
    - name: MUSTER_CLAIM_FILE
      value: {{ include "distributor.claimFile" . | quote }}
    - name: MUSTER_RELEASE_ON_TERM
      value: {{ .Values.sidecar.releaseOnTerm | quote }}
    - name: MUSTER_LISTEN
      value: {{ printf "0.0.0.0:%v" .Values.sidecar.port | quote }}
    - name: MUSTER_RESYNC_MIN
      value: {{ .Values.sidecar.resync.min | quote }}
    - name: MUSTER_RESYNC_MAX
      value: {{ .Values.sidecar.resync.max | quote }}
    - name: MUSTER_LOG_FORMAT
      value: {{ .Values.sidecar.logFormat | quote }}
    {{- if .Values.sidecar.annotatePod }}
    - name: MUSTER_ANNOTATE_POD
      value: "true"
    {{- end }}
    {{- with .Values.sidecar.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: muster
      containerPort: {{ .Values.sidecar.port }}
  # The app starts when this has succeeded once.
  startupProbe:
    {{- if .Values.sidecar.gate }}
    httpGet: {path: /claim, port: muster}
    periodSeconds: 1
    failureThreshold: 2147483647 # waiting for a permit is no failure
    {{- else }}
    httpGet: {path: /readyz, port: muster}
    periodSeconds: 1
    failureThreshold: 300
    {{- end }}
    timeoutSeconds: 5
  # No readinessProbe: an app does not leave its Services because the API server is away for a while.
  livenessProbe:
    httpGet: {path: /healthz, port: muster}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 6
  resources: {{- toYaml .Values.sidecar.resources | nindent 4 }}
  securityContext: {{- include "distributor.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: muster-claim
      mountPath: {{ .Values.sidecar.claimDirectory }}
    {{- include "distributor.tokenMount" . | nindent 4 }}
{{- end -}}

{{- define "distributor.sidecarVolumes" -}}
- name: muster-claim
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{ include "distributor.tokenVolume" . }}
{{- end -}}

{{- define "distributor.claimMount" -}}
- name: muster-claim
  mountPath: {{ .Values.sidecar.claimDirectory }}
  readOnly: true
{{- end -}}

{{- define "distributor.claimFile" -}}
{{ .Values.sidecar.claimDirectory }}/{{ .Values.sidecar.claimFile }}
{{- end -}}

{{- define "distributor.image" -}}
{{ .Values.sidecar.image.repository }}:{{ default .Chart.AppVersion .Values.sidecar.image.tag }}
{{- end -}}

{{- /* What a process of Muster is allowed: the restricted Pod Security Standard, and a root file system that is read-only. */ -}}
{{- define "distributor.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* The token is mounted by hand, so that the sidecar alone has it: the app has no business with the semaphore. */ -}}
{{- define "distributor.tokenMount" -}}
- name: muster-token
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end -}}

{{- define "distributor.tokenVolume" -}}
- name: muster-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3607
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end -}}
