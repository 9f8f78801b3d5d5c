// Copyright (c) claw.fleet contributors
// GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
// SPDX-License-Identifier: GPL-3.0-or-later

// OpenClaw's way to tools that it does not offer at once; what is called by them comes here again by its own name.
const CATALOG = ["tool_search", "tool_describe", "tool_call"];
const WORKSPACE = "/workspace";
const FILES = ["read", "write", "edit", "ls"];
// Of exec's parameters those that change nothing but how long it may take. None is dropped silently: OpenClaw merges
// what a hook returns with what the model gave.
const OF_EXEC = ["command", "timeoutSeconds", "yieldMs"];
const OPERATORS = "();<>|&\n\r";
const QUOTED_ESCAPES = '$`"\\\n';

// Why this call must not be made, or undefined.
export function refusal({ toolName, params }, { tools, command }) {
  if (CATALOG.includes(toolName)) return undefined;
  if (!tools.includes(toolName)) return `The fleet has not named ${toolName} as a tool of its agents.`;
  if (toolName === "exec") return ofExec(params, command);
  return FILES.includes(toolName) ? ofPath(params) : undefined;
}

function ofExec(params, command) {
  const more = Object.keys(params).filter((name) => !OF_EXEC.includes(name));
  if (more.length > 0) return `exec takes no ${more.join(", ")} here; give command alone.`;
  const fault = faultOf(String(params.command ?? ""), command);
  return fault && `Only \`${command}\` can be executed here, one command at a time: ${fault}.`;
}

// What is wrong with a line that has to be one command of words: by a shell's rules for quotes, where whatever a shell
// would do more than split it is a fault.
function faultOf(line, command) {
  const words = line.trim().split(/\s/);
  if (words[0] !== command) return `this begins with ${JSON.stringify(words[0])}`;
  let quote = "";
  for (let at = 0; at < line.length; at += 1) {
    const character = line[at];
    if (quote === "'") quote = character === quote ? "" : quote;
    else if (character === "\\" && (quote === "" || QUOTED_ESCAPES.includes(line[at + 1] ?? " "))) at += 1;
    else if (character === "`" || line.startsWith("$(", at)) return `${character} runs nothing here`;
    else if (quote !== "") quote = character === quote ? "" : quote;
    else if (OPERATORS.includes(character)) return `${character.trim() || "a second line"} means nothing here`;
    else if (character === "'" || character === '"') quote = character;
  }
  return quote === "" ? undefined : `the quote ${quote} is not closed`;
}

function ofPath(params) {
  for (const [name, value] of Object.entries(params)) {
    if (!/path|dir|file|cwd|root/i.test(name) || value === null) continue;
    if (typeof value !== "string" || isOutside(value)) return `${name} is ${JSON.stringify(value)}; only files of the workspace can be reached.`;
  }
  return undefined;
}

// OpenClaw takes more for a path than a path: ~ and @ at its beginning, and a URL.
function isOutside(path) {
  const parts = (path.startsWith("/") ? path : `${WORKSPACE}/${path}`).split("/");
  return /^[~@]|^file:/i.test(path) || parts.includes("..") || parts[1] !== WORKSPACE.slice(1);
}
