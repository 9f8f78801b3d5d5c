"""Systemd hosts in containers, an LLM provider that can be told what to say, the reference coach list.

The Molecule scenarios, the acceptance tests and the embedded demo all stand on this package. Its modules,
each ignorant of those that follow: `shell` (commands and errors), `engine` (a Docker engine is there),
`image` (the host image and its cache), `hosts` (network, hosts, provider, SSH), `coachlist` (the Django app),
`inventory` (what inventories/demo reads), `asking` (a turn of an agent through Django), `progress` (steps that
show themselves), `demo` (up, ask, down), `cli`.
"""
