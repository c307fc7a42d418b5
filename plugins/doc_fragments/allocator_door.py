# Copyright: (c) 2026, Muster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The two ways to an allocator, as each module of it offers them."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  allocator_url:
    description:
      - URL of the allocator, such as V(https://allocator.example.com).
      - O(ca_cert) and O(validate_certs) are about this URL then.
      - One of this and O(allocator) is required.
    type: str
  token:
    description:
      - Bearer token for O(allocator_url). When not given, the one with which the options of authentication log in to
        Kubernetes, which is sent over C(https) only, or to a loopback address.
    type: str
  namespace:
    description:
      - Namespace of O(allocator). When not given, that of the context or of the Pod, else V(default). It is ignored
        with O(allocator_url).
    type: str
"""
