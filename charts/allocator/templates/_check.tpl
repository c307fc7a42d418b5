{{- /* What values.schema.json can't say: values that don't go together. Each message names the value and the remedy. */ -}}
{{- define "allocator.check" -}}
{{- if gt (int .Values.limits.perUser) (int .Values.limits.total) -}}
  {{- fail (printf "limits.perUser is %d and limits.total is %d: no user can have so many" (int .Values.limits.perUser) (int .Values.limits.total)) -}}
{{- end -}}
{{- if gt (int .Values.warm) (int .Values.limits.total) -}}
  {{- fail (printf "warm is %d and limits.total is %d: so many will never be asked for" (int .Values.warm) (int .Values.limits.total)) -}}
{{- end -}}
{{- if and .Values.warm (not .Values.template) -}}
  {{- fail "warm: the example says who its owner is, so none can be made before somebody asks; give a template that does not" -}}
{{- end -}}
{{- if gt (len (include "allocator.template" .)) 262144 -}}
  {{- fail "template: give at most 262144 bytes" -}}
{{- end -}}
{{- end -}}
