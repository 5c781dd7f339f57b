{{- define "deltadatabase.fullname" -}}
{{- if contains "deltadatabase" .Release.Name -}}
{{- .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-deltadatabase" .Release.Name | trunc 48 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "deltadatabase.main" -}}
{{ include "deltadatabase.fullname" . }}-main-worker
{{- end -}}

{{- define "deltadatabase.proc" -}}
{{ include "deltadatabase.fullname" . }}-proc-worker
{{- end -}}

{{/* What a pod is found by; it never changes. Call it with a list: root and component. */}}
{{- define "deltadatabase.selector" -}}
app.kubernetes.io/name: deltadatabase
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "deltadatabase.labels" -}}
{{ include "deltadatabase.selector" . }}
app.kubernetes.io/part-of: deltadatabase
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end -}}

{{- define "deltadatabase.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "deltadatabase.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "deltadatabase.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* In the environment, where `deltadb health` finds them too. */}}
{{- define "deltadatabase.tlsEnv" -}}
- name: DELTADB_TLS_CERT
  value: /tls/tls.crt
- name: DELTADB_TLS_KEY
  value: /tls/tls.key
- name: DELTADB_TLS_CA
  value: /tls/ca.crt
- name: DELTADB_TLS_CLIENT_AUTH
  value: {{ .Values.tls.clientAuth | quote }}
- name: DELTADB_TLS_SERVER_NAME
  value: {{ .Values.tls.serverName | quote }}
{{- end -}}
