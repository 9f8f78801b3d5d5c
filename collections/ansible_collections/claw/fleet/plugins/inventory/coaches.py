# Copyright (c) claw.fleet contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The coach list of Django as host variables of the gateways."""

from __future__ import annotations

DOCUMENTATION = r"""
name: coaches
short_description: Coaches from a Django app, as lists on the gateways that carry their agents
version_added: 0.1.0
author: claw.fleet contributors (@claw-fleet)
description:
  - Reads the coach list of a Django app, page by page, and gives each gateway the list of the coaches it
    holds and of those proposed to it.
  - Gateways are hosts. Coaches are data on them, not hosts, so that a task costs as much for a hundred
    coaches as for one. The gateways must be known from inventory sources that come before this one, on the
    command line or by the order of names in an inventory directory.
  - Every host of O(gateways_group) gets the variables C(coaches_list), also an empty one, and
    C(coaches_list_complete), which is true. They are set after the last page has been read and checked, and
    not at all otherwise.
  - A coach is never moved. One whom nobody holds is proposed to the gateway with the fewest coaches, by name
    among equals, within its capacity. The proposal becomes a claim when the role P(claw.fleet.coaches#role)
    runs.
  - A row that cannot be used, for example for its C(agent_id), carries an C(error) that the role writes back
    to Django. The other rows are served.
  - Nobody is removed for not being in the list. Only coaches who are wanted removed are.
  - Values of coaches are data. Ansible does not look for templates in them.
notes:
  - Uses a YAML file whose name ends with C(.coaches.yml) or C(.coaches.yaml).
  - Ansible only warns when one of several inventory sources fails. The role P(claw.fleet.coaches#role)
    refuses to run on a gateway without C(coaches_list_complete). To stop Ansible itself set
    C(any_unparsed_is_failed = true) in the section C(inventory) of C(ansible.cfg), or
    E(ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=true).
  - C(gateway_name) and C(gateway_capacity) are read from inventory sources and from the C(group_vars) and
    C(host_vars) beside them. What is beside a playbook is not known yet when inventories are read.
  - With O(cache=true) the list is kept with its C(ETag) and asked for by C(If-None-Match), so an unchanged
    list costs one request whatever its length. A list is never taken from the cache without asking. Without
    O(cache_connection) and a persistent O(cache_plugin), nothing outlives the run. The cache holds names of
    coaches and hashes of keys.
extends_documentation_fragment:
  - constructed
  - inventory_cache
  - claw.fleet.django
  - claw.fleet.django.plugin
options:
  plugin:
    description: Marks the file as one for this plugin.
    required: true
    choices: [claw.fleet.coaches]
  api_url:
    description:
      - The base of Django's companion API, for example C(https://app.example.com/api/companion/v1/).
      - May be a template over extra variables.
  api_token:
    description:
      - A service token of Django's internal API, sent only to O(api_url)'s own scheme, host and port.
      - May be a template over extra variables and lookups.
    required: false
  api_token_file:
    description:
      - A file on the controller that holds the token, used if O(api_token) is not given. May be a template.
    type: path
    env:
      - name: CLAW_FLEET_API_TOKEN_FILE
  gateways_group:
    description: The group whose hosts are the gateways.
    type: str
    default: gateways
  capacity:
    description: How many coaches a gateway holds, unless O(capacities) or its variable C(gateway_capacity)
      says so.
    type: int
    default: 100
  capacities:
    description: How many coaches certain gateways hold, by their names.
    type: dict
    default: {}
  filters:
    description:
      - Query parameters that choose which coaches are this fleet's at all, for apps that serve several
        fleets.
      - C(status) is refused. A list without some of a gateway's own coaches would take their places for free.
    type: dict
    default: {}
"""

EXAMPLES = r"""
# fleet.coaches.yml, with CLAW_FLEET_API_URL and CLAW_FLEET_API_TOKEN in the environment
plugin: claw.fleet.coaches

---
# A token from a vault, and an unchanged list for one request
plugin: claw.fleet.coaches
api_url: https://app.example.com/api/companion/v1/
api_token: "{{ lookup('community.hashi_vault.hashi_vault', 'secret=fleet/service:token') }}"
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/claw.fleet/inventory

---
# An app with its own names, and small gateways
plugin: claw.fleet.coaches
api_url: https://app.example.com/companion/
api_token_file: ~/.config/claw.fleet/token
api:
  paths:
    coaches: v2/profiles/
  auth_header: X-Service-Key
  auth_prefix: ""
  fields:
    agent_id: openclaw_id
    wanted: desired_state
capacity: 50
capacities:
  gw-small: 10
filters:
  fleet: staging

---
# What gateways hold as groups: group gateways_full has those with 90 coaches or more
plugin: claw.fleet.coaches
api_url: https://app.example.com/api/companion/v1/
groups:
  gateways_full: coaches_list | length >= 90
compose:
  coaches_paused: coaches_list | selectattr('wanted', 'eq', 'paused') | length
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.data import InventoryData
from ansible.inventory.helpers import get_group_vars
from ansible.inventory.host import Host
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.utils.vars import combine_vars
from ansible.vars.plugins import get_vars_from_inventory_sources
from ansible_collections.claw.fleet.plugins.module_utils import _long_list
from ansible_collections.claw.fleet.plugins.module_utils._coach import (
    CoachListError,
    Row,
    check_rows,
    gateway_name,
    has_error,
    shown,
)
from ansible_collections.claw.fleet.plugins.module_utils._coach_api import (
    DJANGO_ARGUMENT_SPEC,
    ApiError,
    Client,
    OptionsError,
)
from ansible_collections.claw.fleet.plugins.module_utils._placement import Placement, place

_REFUSED_FILTERS = ("status", "page_size", "cursor")
_NAMED_AT_MOST = 5


class Gateway(NamedTuple):
    """A host that is a gateway, and how many coaches it holds at most."""

    host: Host
    capacity: int


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Read the list, place it, and only then set variables."""

    NAME = "claw.fleet.coaches"

    inventory: InventoryData

    def verify_file(self, path: str) -> bool:
        """Whether the name of the file says that it is for this plugin."""
        return bool(super().verify_file(path)) and path.endswith((".coaches.yml", ".coaches.yaml"))

    def parse(self, inventory: InventoryData, loader: DataLoader, path: str, cache: bool = True) -> None:
        """Give each gateway its list, or raise AnsibleParserError and give none of them anything."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        try:
            gateways = self._gateways()
            capacities = {name: gateway.capacity for name, gateway in gateways.items()}
            with _long_list.none_is_garbage():
                placement = place(self._coaches(path, cache), capacities)
            self._refuse_homeless(placement, len(gateways))
        except (ApiError, CoachListError, OptionsError) as exc:
            raise AnsibleParserError(f"The list of coaches was not read: {exc}") from None
        self._warn(placement)
        for name, rows in placement.by_gateway.items():
            # The host's own method: the inventory's notes an origin on each value of each coach, which takes four
            # times as long as all the rest. Values without marks are data to Ansible, never templates.
            gateways[name].host.set_variable("coaches_list", rows)
        for gateway in gateways.values():
            self._construct(gateway.host)
        # Last, because strict options of constructed may still fail this source.
        for gateway in gateways.values():
            gateway.host.set_variable("coaches_list_complete", True)

    # Django

    def _coaches(self, path: str, use_cache: bool) -> list[Row]:
        """Every row of the list, checked: from Django, or from the cache if Django says it still is that."""
        filters = self._filters()
        params = {name: self.get_option(name) for name in DJANGO_ARGUMENT_SPEC}
        params["api_url"] = self._templated("api_url")
        params["api_token"] = self._token()
        client = Client.of(params)
        # What makes it another list. The token does not: Django judges it anew at each request.
        mark = _long_list.fingerprint(str(params["api_url"]), filters, params["api"])
        etag, known = _long_list.unpack(self._kept(path), mark) if use_cache else ("", [])
        pages = client.coaches(filters, etag=etag)
        if pages is None:
            return known
        if not pages.rows and known:
            self.display.warning(
                f"The list of coaches is empty now; when read last it had {len(known)}. Nobody "
                "is removed for that. If it is not meant, check api_url, filters and the app's database."
            )
        # Rows are kept as checked: not everything that JSON can carry survives being written to a file.
        rows = check_rows(pages.rows)
        if self.get_option("cache"):
            self._cache[self.get_cache_key(path)] = _long_list.pack(mark, pages.etag, rows)
        return rows

    def _kept(self, path: str) -> object:
        """What the cache has of this source, or nothing."""
        try:
            return self._cache[self.get_cache_key(path)] if self.get_option("cache") else None
        except KeyError:
            return None
        except AnsibleError as exc:
            # A disk that was full leaves half a file. Without it this run only costs what the first one did.
            self.display.warning(f"What was read of the list before cannot be read from the cache: {exc}")
            return None

    def _filters(self) -> dict[str, Any]:
        filters: dict[str, Any] = self.get_option("filters")
        refused = [name for name in _REFUSED_FILTERS if name in filters]
        if refused:
            raise OptionsError(
                f"filters must not have {', '.join(refused)}: the list would lack coaches who take places."
            )
        return filters

    def _token(self) -> str:
        token = self._templated("api_token")
        if token:
            return token
        file = self._templated("api_token_file")
        if not file:
            raise OptionsError("There is no token. Set api_token, api_token_file or CLAW_FLEET_API_TOKEN.")
        try:
            return Path(file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise OptionsError(f"api_token_file cannot be read: {exc}.") from None

    def _templated(self, option: str) -> str:
        value = self.get_option(option)
        if not value:
            return ""
        # Without the variables of hosts: there are none of this source's own yet.
        self.templar.available_variables = self._vars
        try:
            return str(self.templar.template(value))
        except AnsibleError as exc:
            # The template's own text may hold what it is there to hide.
            raise OptionsError(
                f"{option} is a template that fails ({type(exc).__name__}); check it."
            ) from None

    # Gateways

    def _gateways(self) -> dict[str, Gateway]:
        """The gateways by their names, which need not be those of their hosts."""
        group_name = self.get_option("gateways_group")
        group = self.inventory.groups.get(group_name)
        if group is None:
            raise OptionsError(
                f"there is no group {shown(group_name)} yet. Name the inventory of the gateways before this "
                "one (-i, or by its file name in an inventory directory), or set gateways_group."
            )
        capacities = self.get_option("capacities")
        found: dict[str, Gateway] = {}
        for host in group.get_hosts():
            if "coaches_list" in host.vars:
                raise OptionsError(
                    f"host {host.name} has a list of coaches from another source already. A gateway takes one: "
                    "give each list a gateways_group of its own."
                )
            variables = self._variables(host)
            try:
                name = gateway_name(variables.get("gateway_name", host.name))
            except ValueError as exc:
                raise OptionsError(f"gateway_name of host {host.name} {exc}.") from None
            if name in found:
                raise OptionsError(
                    f"hosts {found[name].host.name} and {host.name} both are gateway {name}; change a gateway_name."
                )
            capacity = capacities.get(name, variables.get("gateway_capacity", self.get_option("capacity")))
            found[name] = Gateway(host, _capacity(capacity, name))
        unknown = sorted(set(capacities) - set(found))
        if unknown:
            raise OptionsError(f"capacities names {shown(unknown[0])}, which is no gateway of {group_name}.")
        return found

    def _variables(self, host: Host) -> dict[str, Any]:
        """What inventory sources so far say of a host; the two names that matter here, templates resolved."""
        sources = self.inventory.processed_sources
        groups = host.get_groups()
        variables: dict[str, Any] = {}
        for source in (
            get_group_vars(groups),
            get_vars_from_inventory_sources(self.loader, sources, groups, "all"),
            host.get_vars(),
            get_vars_from_inventory_sources(self.loader, sources, [host], "all"),
        ):
            variables = combine_vars(variables, source)
        variables = combine_vars(variables, self._vars)
        self.templar.available_variables = variables
        try:
            return {
                name: self.templar.template(variables[name])
                for name in ("gateway_name", "gateway_capacity")
                if name in variables
            }
        except AnsibleError as exc:
            raise OptionsError(f"gateway_name or gateway_capacity of host {host.name} fails: {exc}") from None

    def _construct(self, host: Host) -> None:
        """Apply compose, groups and keyed_groups; without them no template is touched."""
        compose, groups, keyed_groups = (
            self.get_option(name) for name in ("compose", "groups", "keyed_groups")
        )
        if not (compose or groups or keyed_groups):
            return
        strict = self.get_option("strict")
        self._set_composite_vars(compose, host.get_vars(), host.name, strict=strict)
        self._add_host_to_composed_groups(groups, {}, host.name, strict=strict)
        self._add_host_to_keyed_groups(keyed_groups, {}, host.name, strict=strict)

    # What people should know

    def _refuse_homeless(self, placement: Placement, gateways: int) -> None:
        if not placement.homeless:
            return
        capacity = max(1, self.get_option("capacity"))
        missing = math.ceil(len(placement.homeless) / capacity)
        raise OptionsError(
            f"the fleet is full: {len(placement.homeless)} coaches have no place on its {gateways} gateways. "
            f"Add {missing} gateway{'s' if missing > 1 else ''} of {capacity} to the group "
            f"{self.get_option('gateways_group')}, or raise gateway_capacity where machines allow it."
        )

    def _warn(self, placement: Placement) -> None:
        for gateway, rows in sorted(placement.strangers.items()):
            self.display.warning(
                f"Gateway {gateway} is no host of group {self.get_option('gateways_group')}, but holds "
                f"{_named(rows)}. They are left alone. Add it to the inventory, or remove them in Django."
            )
        if placement.waiting:
            self.display.warning(
                f"The fleet is full until coaches who are wanted removed have left. Run again for "
                f"{_named(placement.waiting)}."
            )
        bad = [row for rows in placement.by_gateway.values() for row in rows if has_error(row)]
        if bad:
            self.display.warning(
                f"Rows that cannot be used: {_named(bad)}. The role coaches says why, in Django."
            )


def _capacity(value: object, name: str) -> int:
    try:
        capacity = int(str(value))
    except ValueError:
        capacity = -1
    if capacity < 0:
        raise OptionsError(
            f"the capacity of gateway {name} is {shown(value)}; it must be a whole number, 0 or more."
        )
    return capacity


def _named(rows: list[Row]) -> str:
    names = [str(row["agent_id"] or f"pk {row['pk']}") for row in rows[:_NAMED_AT_MOST]]
    more = len(rows) - len(names)
    return f"{len(rows)} coaches ({', '.join(names)}{f' and {more} more' if more else ''})"
