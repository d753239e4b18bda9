// What both drivers share: `node DRIVER.mjs BASE_URL KEY MODEL FOLDER [CASE...]` runs these cases, or all, and prints one
// line of JSON, {case: facts}. A case that throws is told as {error}, for the test to judge.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { File as NodeFile } from "node:buffer";

// Node 18 has File only here, and the openai package names this remedy in its own message.
globalThis.File ??= NodeFile;

const [baseURL, apiKey, model, folder, ...wanted] = process.argv.slice(2);
export const target = { baseURL, apiKey, model };
export const path = (name) => join(folder, name);
export const bytes = (name) => readFileSync(path(name));

export async function run(cases, describeError) {
  const told = {};
  for (const [name, tell] of Object.entries(cases)) {
    if (wanted.length && !wanted.includes(name)) continue;
    try {
      told[name] = await tell();
    } catch (error) {
      told[name] = { error: { name: error.constructor.name, message: error.message, ...describeError(error) } };
    }
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
