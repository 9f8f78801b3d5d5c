// Copyright (c) claw.fleet contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

const LONGEST_HOLD_SECONDS = 30;
// Nobody is told of a run that ends before it has begun in earnest; one that has been silent for so long is over.
const LONGEST_SILENCE_SECONDS = 3600;

// Which agents are at work, and whose next turn has to wait for a moment because her sandbox is being taken away.
export function createRuns() {
  const active = new Map();
  const held = new Map();

  function note({ agentId, runId }) {
    if (agentId === undefined || runId === undefined) return;
    if (!active.has(agentId)) active.set(agentId, new Map());
    active.get(agentId).set(runId, Date.now());
  }

  function see(context) {
    if (active.get(context?.agentId)?.has(context.runId)) note(context);
  }

  function end({ agentId, runId }) {
    const runs = active.get(agentId);
    runs?.delete(runId);
    if (runs?.size === 0) active.delete(agentId);
  }

  function endTheSilent() {
    const since = Date.now() - 1000 * LONGEST_SILENCE_SECONDS;
    for (const [agentId, runs] of active) {
      for (const [runId, seen] of runs) if (seen < since) end({ agentId, runId });
    }
  }

  function release(agentId) {
    const hold = held.get(agentId);
    held.delete(agentId);
    clearTimeout(hold?.timer);
    hold?.free();
    return hold !== undefined;
  }

  function hold(agentId, seconds) {
    endTheSilent();
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
    see,
    end,
    hold,
    release,
    active() {
      endTheSilent();
      return Object.fromEntries([...active].map(([agentId, runs]) => [agentId, runs.size]));
    },
  };
}
