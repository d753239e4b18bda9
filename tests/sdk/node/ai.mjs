// Drives a gateway with npm `ai` and `@ai-sdk/openai`.
import { createOpenAI } from "@ai-sdk/openai";
import { generateImage } from "ai";
import { bytes, run, target } from "./cases.mjs";

// The library prints its warnings to standard output, where only the result belongs.
globalThis.AI_SDK_LOG_WARNINGS = false;

const at = (apiKey) => createOpenAI({ baseURL: target.baseURL, apiKey });
const sdk = at(target.apiKey);
const text = "a lighthouse at dusk";
const usual = { model: sdk.image(target.model), prompt: text, size: "1536x1024", maxRetries: 0 };

async function generate(more) {
  const answer = await generateImage({ ...usual, ...more });
  return {
    images: answer.images.map((image) => image.base64),
    mediaTypes: answer.images.map((image) => image.mediaType),
    warnings: answer.warnings,
    headers: answer.responses.map((response) => response.headers),
  };
}
const options = (openai) => generate({ providerOptions: { openai } });

const cases = {
  generate: () => generate({}),
  three: () => generate({ n: 3 }),
  jpeg: () => options({ outputFormat: "jpeg", outputCompression: 80 }),
  webp: () => options({ outputFormat: "webp", quality: "low" }),
  told: () => options({ moderation: "low", style: "vivid", user: "someone" }),
  edit: () => generate({ prompt: { text, images: [bytes("first.png")] } }),
  edit_two: () => generate({ prompt: { text, images: [bytes("first.png"), bytes("second.png")] } }),
  edit_mask: () => generate({ prompt: { text, images: [bytes("first.png")], mask: bytes("mask.png") } }),
  wrong_key: () => generate({ model: at("igw_wrong").image(target.model) }),
  bad_size: () => generate({ size: "1000x1000" }),
  unknown_model: () => generate({ model: sdk.image("no-such-model") }),
};

await run(cases, ({ statusCode, data, isRetryable, responseHeaders }) => ({
  status: statusCode,
  ...data?.error,
  isRetryable,
  requestId: responseHeaders?.["x-request-id"],
}));
