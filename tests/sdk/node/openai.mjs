// Drives a gateway with npm `openai`.
import { createReadStream } from "node:fs";
import OpenAI, { toFile } from "openai";
import { bytes, path, run, target } from "./cases.mjs";

const client = new OpenAI({ baseURL: target.baseURL, apiKey: target.apiKey, maxRetries: 0 });
const { model } = target;
const prompt = "a lighthouse at dusk";
const size = "1536x1024";
const png = (name) => toFile(bytes(name), name, { type: "image/png" });

const facts = (answer) => ({
  images: answer.data.map((item) => item.b64_json),
  urls: answer.data.map((item) => item.url),
  size: answer.size,
  format: answer.output_format,
});
const generate = async (more) => facts(await client.images.generate({ model, prompt, size, ...more }));
const edit = async (more) => facts(await client.images.edit({ model, prompt, size, ...more }));

async function collect(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return { types: events.map((event) => event.type), images: events.map((event) => event.b64_json) };
}

const cases = {
  generate: () => generate({}),
  three: () => generate({ n: 3 }),
  link: () => generate({ response_format: "url" }),
  jpeg: () => generate({ output_format: "jpeg", output_compression: 80 }),
  webp: () => generate({ output_format: "webp" }),
  stream: async () => collect(await client.images.generate({ model, prompt, size, stream: true })),
  edit: async () => edit({ image: await png("first.png") }),
  edit_from_disk: () => edit({ image: createReadStream(path("first.png")) }),
  edit_list_of_one: async () => edit({ image: [await png("first.png")] }),
  edit_four: async () => edit({ image: await Promise.all(["first.png", "second.png", "third.png", "fourth.png"].map(png)) }),
  edit_mask: async () => edit({ image: await png("first.png"), mask: await png("mask.png") }),
  edit_stream: async () =>
    collect(await client.images.edit({ model, prompt, size, image: await png("first.png"), stream: true })),
  models: async () => {
    const ids = [];
    for await (const each of client.models.list()) ids.push(each.id);
    return { ids, found: (await client.models.retrieve(model)).id };
  },
  headers: async () => {
    const { data, response, request_id } = await client.images
      .generate({ model, prompt, size, style: "vivid" })
      .withResponse();
    return { headers: Object.fromEntries(response.headers), requestId: request_id, onData: data._request_id };
  },
  wrong_key: () => client.withOptions({ apiKey: "igw_wrong" }).images.generate({ model, prompt }),
  wrong_key_upload: () =>
    client.withOptions({ apiKey: "igw_wrong" }).images.edit({ model, prompt, image: new File([new Uint8Array(40e6)], "a") }),
  bad_size: () => client.images.generate({ model, prompt, size: "1000x1000" }),
  unknown_model: () => client.images.generate({ model: "no-such-model", prompt }),
  variation: async () => client.images.createVariation({ model, image: await png("first.png") }),
};

await run(cases, ({ status, code, type, param, requestID }) => ({ status, code, type, param, requestId: requestID }));
