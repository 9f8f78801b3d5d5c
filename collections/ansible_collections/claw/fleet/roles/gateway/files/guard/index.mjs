// Copyright (c) claw.fleet contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later
import { refusal } from "./policy.mjs";
import { createRuns } from "./runs.mjs";

// OpenClaw loads a plugin more than once in a process, and what one copy counts another is asked for.
const runs = (globalThis[Symbol.for("claw.fleet.guard.runs")] ??= createRuns());

export default {
  id: "claw-fleet-guard",
  name: "claw.fleet guard",
  description: "Refuses every call of a tool that the fleet has not named, and knows which agents are at work",
  register(api) {
    const { tools, command } = api.pluginConfig ?? {};
    // A handler that throws blocks the call as well.
    api.on("before_tool_call", (event, context) => {
      runs.see(context);
      const blockReason = refusal(event, { tools, command });
      return blockReason === undefined ? undefined : { block: true, blockReason };
    });
    // The first is before a turn has its sandbox; after a failure the second alone comes again.
    api.on("before_model_resolve", (_event, context) => runs.begin(context));
    api.on("before_prompt_build", (_event, context) => runs.note(context));
    api.on("agent_end", (_event, context) => runs.end(context));
    // A turn in which OpenClaw has her write down what is about to leave her context ends without the above.
    api.on("llm_output", (_event, context) => (context.trigger === "memory" ? runs.end(context) : undefined));
    api.registerHttpRoute({ path: "/claw-fleet/runs", auth: "gateway", match: "exact", handler: answer });
  },
};

// GET: {"runs": {agent: number}}. PUT ?hold=AGENT&seconds=N: {"held": bool}, false if she is at work; her next turn
// waits that long at most. DELETE ?hold=AGENT: it waits no longer.
function answer(request, response) {
  const asked = new URL(request.url, "http://localhost").searchParams;
  const agent = asked.get("hold");
  let told = { runs: runs.active() };
  if (request.method === "PUT") told = { held: runs.hold(agent, Number(asked.get("seconds"))) };
  else if (request.method === "DELETE") told = { released: runs.release(agent) };
  response.statusCode = 200;
  response.setHeader("Content-Type", "application/json");
  response.end(JSON.stringify(told));
  return true;
}
