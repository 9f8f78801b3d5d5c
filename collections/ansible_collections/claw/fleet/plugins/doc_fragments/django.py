# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of everything that talks to Django."""

from __future__ import annotations


class ModuleDocFragment:
    """DOCUMENTATION is for modules; PLUGIN adds what only plugins can have."""

    DOCUMENTATION = r"""
options:
  api_url:
    description:
      - The base of Django's companion API, for example C(https://app.example.com/api/companion/v1/).
      - If it is not given, the environment variable E(CLAW_FLEET_API_URL) of the controller is used.
    type: str
    required: true
  api_token:
    description:
      - A service token of Django's internal API. It is used on the controller alone, and only towards
        O(api_url)'s own scheme, host and port.
      - If it is not given, the environment variable E(CLAW_FLEET_API_TOKEN) of the controller is used.
    type: str
    required: true
  api:
    description: What your app does differently from the reference coach list.
    type: dict
    default: {}
    suboptions:
      paths:
        description:
          - Paths below O(api_url). The defaults are
            C(coaches=internal/coaches/),
            C(claim=internal/coaches/{pk}/claim/),
            C(status=internal/coaches/{pk}/status/),
            C(set_key=internal/set-key/{agent_id}/),
            C(gateway=internal/gateways/{name}/) and
            C(service_token=internal/service-tokens/{token_sha256}/).
        type: dict
        default: {}
      auth_header:
        description: The header that carries the token.
        type: str
        default: Authorization
      auth_prefix:
        description: What stands before the token, with a space between. Empty for the token alone.
        type: str
        default: Bearer
      fields:
        description:
          - The app's names of fields, by those used here, where they differ; for example
            C(agent_id=openclaw_id).
          - The fields of a coach are C(pk), C(agent_id), C(name), C(vars), C(wanted), C(generation),
            C(status), C(observed_generation), C(reason), C(gateway), C(key_id), C(key_sha256),
            C(key_generation) and C(key_wanted_generation); those of a gateway are C(url), C(token),
            C(next_token), C(capacity), C(token_sha256) and C(next_token_sha256); a key sent with O(api.send=plaintext) is in C(api_key).
        type: dict
        default: {}
      send:
        description:
          - What Django gets of a coach's key. Its SHA-256 with V(hash).
          - V(plaintext) is for an app that wants to hash the key itself. Then each new key travels through
            the controller and the app's logs may hold it.
        type: str
        choices: [hash, plaintext]
        default: hash
      page_size:
        description: How many coaches a page of the list is asked to have. The reference coach list gives at
          most 1000.
        type: int
        default: 500
  timeout:
    description: How many seconds a request may be without an answer.
    type: int
    default: 30
  retries:
    description:
      - How often a request is repeated after status 429, 5xx or a broken connection, with growing pauses of
        at most 60 seconds; C(Retry-After) is honoured up to that. Other refusals are final.
    type: int
    default: 5
  validate_certs:
    description: Whether Django's certificate is checked.
    type: bool
    default: true
  ca_path:
    description: A file of certificate authorities to trust instead of the system's.
    type: path
  client_cert:
    description: A PEM file with the client certificate to present, and maybe its key.
    type: path
  client_key:
    description: A PEM file with the client certificate's key, if O(client_cert) has none.
    type: path
  use_proxy:
    description: Whether the controller's proxy variables, such as E(https_proxy), apply.
    type: bool
    default: true
"""

    PLUGIN = r"""
options:
  api_url:
    env:
      - name: CLAW_FLEET_API_URL
  api_token:
    env:
      - name: CLAW_FLEET_API_TOKEN
"""
