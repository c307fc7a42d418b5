# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options by which a module finds its cluster; the same as those of kubernetes.core."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  kubeconfig:
    description:
      - Path of a kubeconfig file, or its content as a dictionary.
      - Several paths, joined by C(:), are merged as kubectl does.
      - Can also be set by the environment variable E(K8S_AUTH_KUBECONFIG).
      - If neither O(kubeconfig) nor O(context) is set, the service account of the Pod is used if the module runs in
        one, else the files in E(KUBECONFIG), else C(~/.kube/config).
    type: raw
  context:
    description:
      - Name of the context in the kubeconfig; without it, the current context.
      - Can also be set by the environment variable E(K8S_AUTH_CONTEXT).
    type: str
  host:
    description:
      - URL of the API server, such as V(https://10.0.0.1:6443).
      - Can also be set by the environment variable E(K8S_AUTH_HOST).
      - With O(api_key), with O(username) and O(password), or with O(client_cert) and O(client_key) no kubeconfig is
        read.
    type: str
  api_key:
    description:
      - Bearer token.
      - Can also be set by the environment variable E(K8S_AUTH_API_KEY).
    type: str
  username:
    description:
      - User name for HTTP basic authentication. Kubernetes itself has not accepted it since 1.19; a proxy in front of
        it may.
      - Can also be set by the environment variable E(K8S_AUTH_USERNAME).
    type: str
  password:
    description:
      - Password for HTTP basic authentication, see O(username).
      - Can also be set by the environment variable E(K8S_AUTH_PASSWORD).
    type: str
  client_cert:
    description:
      - Path of a client certificate.
      - Can also be set by the environment variables E(K8S_AUTH_CLIENT_CERT) and E(K8S_AUTH_CERT_FILE).
    type: path
    aliases: [cert_file]
  client_key:
    description:
      - Path of the key that belongs to O(client_cert).
      - Can also be set by the environment variables E(K8S_AUTH_CLIENT_KEY) and E(K8S_AUTH_KEY_FILE).
    type: path
    aliases: [key_file]
  ca_cert:
    description:
      - Path of the CA certificates that the API server's certificate is verified against.
      - Can also be set by the environment variables E(K8S_AUTH_CA_CERT) and E(K8S_AUTH_SSL_CA_CERT).
    type: path
    aliases: [ssl_ca_cert]
  validate_certs:
    description:
      - Whether the API server's certificate is verified; it is unless the kubeconfig or this option says otherwise.
      - Can also be set by the environment variables E(K8S_AUTH_VALIDATE_CERTS) and E(K8S_AUTH_VERIFY_SSL).
    type: bool
    aliases: [verify_ssl]
  proxy:
    description:
      - URL of a proxy between here and the API server (C(http), C(https), or C(socks5) if PySocks is installed).
      - Can also be set by the environment variable E(K8S_AUTH_PROXY). Without it C(proxy-url) of the kubeconfig counts,
        then E(HTTPS_PROXY) and E(HTTP_PROXY), except for a loopback address.
    type: str
  no_proxy:
    description:
      - Hosts, domains, addresses and networks (CIDR) that are reached without the proxy, separated by commas, such as
        V(localhost,.example.com,10.0.0.0/8).
      - Can also be set by the environment variable E(K8S_AUTH_NO_PROXY), then E(NO_PROXY).
    type: str
  proxy_headers:
    description:
      - Headers for the proxy.
    type: dict
    suboptions:
      proxy_basic_auth:
        description:
          - User and password for the proxy, joined by a colon.
          - Can also be set by the environment variable E(K8S_AUTH_PROXY_HEADERS_PROXY_BASIC_AUTH).
        type: str
      basic_auth:
        description:
          - User and password for HTTP basic authentication, joined by a colon.
          - Can also be set by the environment variable E(K8S_AUTH_PROXY_HEADERS_BASIC_AUTH).
        type: str
      user_agent:
        description:
          - The user agent to name to the proxy.
          - Can also be set by the environment variable E(K8S_AUTH_PROXY_HEADERS_USER_AGENT).
        type: str
  persist_config:
    description:
      - Whether tokens that were refreshed are saved in the kubeconfig. Counts only for an C(auth-provider) (OIDC and
        the like), which needs the Python library C(kubernetes).
      - Can also be set by the environment variable E(K8S_AUTH_PERSIST_CONFIG).
    type: bool
  impersonate_user:
    description:
      - The user as whom the request is made.
      - Can also be set by the environment variable E(K8S_AUTH_IMPERSONATE_USER).
    type: str
  impersonate_groups:
    description:
      - The groups as whose member the request is made; needs O(impersonate_user).
      - Can also be set by the environment variable E(K8S_AUTH_IMPERSONATE_GROUPS), separated by commas.
    type: list
    elements: str
requirements:
  - python >= 3.11
  - urllib3 >= 1.26
  - PyYAML (if a kubeconfig in YAML is read)
notes:
  - Finds the cluster exactly as the modules of kubernetes.core do, without needing the Python library C(kubernetes).
"""
