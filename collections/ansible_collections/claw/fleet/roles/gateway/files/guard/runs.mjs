// Copyright (c) claw.fleet contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

const LONGEST_HOLD_SECONDS = 30;

// Which agents are at work, and whose next turn has to wait for a moment because her sandbox is being taken away.
export function createRuns() {
  const active = new Map();
  const held = new Map();

  function note({ agentId, runId }) {
    if (agentId === undefined || runId === undefined) return;
    if (!active.has(agentId)) active.set(agentId, new Set());
    active.get(agentId).add(runId);
  }

  function end({ agentId, runId }) {
    const runs = active.get(agentId);
    runs?.delete(runId);
    if (runs?.size === 0) active.delete(agentId);
  }

  function release(agentId) {
    const hold = held.get(agentId);
    held.delete(agentId);
    clearTimeout(hold?.timer);
    hold?.free();
    return hold !== undefined;
  }

  function hold(agentId, seconds) {
    if (!agentId || active.has(agentId)) return false;
    release(agentId);
    let free;
    const over = new Promise((resolve) => (free = resolve));
    // Whoever asked for it may not live to end it.
    const timer = setTimeout(() => release(agentId), 1000 * Math.min(seconds || 0, LONGEST_HOLD_SECONDS));
    held.set(agentId, { over, free, timer });
    return true;
  }

  async function begin(context) {
    while (held.has(context.agentId)) await held.get(context.agentId).over;
    note(context);
  }

  return {
    begin,
    note,
    end,
    hold,
    release,
    active: () => Object.fromEntries([...active].map(([agentId, runs]) => [agentId, runs.size])),
  };
}
