// Drives a gateway with npm `openai` as it comes, retries and all: `node retries.mjs BASE_URL KEY MODEL FOLDER CALLS
// PARALLEL SECONDS [keyed]` makes so many calls, so many at a time, with that time-out, each with a prompt of its own, and prints
// one line of JSON, {prompt: status}.
// With `keyed` every fifth has an Idempotency-Key. Every other one is an edit; every other pair says its time-out with the request, which the library then announces.
import { readFileSync } from "node:fs";
import { File as NodeFile } from "node:buffer";
import { join } from "node:path";
import OpenAI, { toFile } from "openai";

// Node 18 has File only here.
globalThis.File ??= NodeFile;

const [baseURL, apiKey, model, folder, calls, parallel, seconds, keyed] = process.argv.slice(2);
const timeout = Number(seconds) * 1000;
const size = "1024x1024";
const patient = new OpenAI({ baseURL, apiKey });
const hurried = new OpenAI({ baseURL, apiKey, timeout });
const picture = readFileSync(join(folder, "picture.png"));

async function call(number) {
  const prompt = `node ${number}`;
  const headers = keyed && number % 5 === 0 ? { "Idempotency-Key": prompt } : {};
  const [client, options] = number % 4 < 2 ? [hurried, { headers }] : [patient, { timeout, headers }];
  try {
    if (number % 2) {
      const image = await toFile(picture, "picture.png", { type: "image/png" });
      await client.images.edit({ model, prompt, size, image }, options);
    } else {
      await client.images.generate({ model, prompt, size }, options);
    }
    return [prompt, 200];
  } catch (error) {
    // One that timed out, or whose connection broke, has no status.
    if (!(error instanceof OpenAI.APIError)) throw error;
    return [prompt, error.status ?? 0];
  }
}

const told = [];
let next = 0;
async function work() {
  while (next < Number(calls)) told.push(await call(next++));
}
await Promise.all(Array.from({ length: Number(parallel) }, work));
process.stdout.write(`${JSON.stringify(Object.fromEntries(told))}\n`);
