// Drives @anthropic-ai/sdk: JSON lines in, JSON lines out. The same orders and answers as tests/support/sdk_python.py.
import Anthropic from "@anthropic-ai/sdk";
import { createInterface } from "node:readline";

async function create(client, params) {
  return { message: await client.messages.create(params) };
}

async function stream(client, params) {
  const events = [];
  let text = "";
  const opened = client.messages.stream(params);
  opened.on("streamEvent", (event) => events.push(event.type));
  opened.on("text", (delta) => (text += delta));
  const message = await opened.finalMessage();
  return { message, events, text, request_id: opened.request_id };
}

async function leave(client, params) {
  const { after, ...rest } = params;
  const opened = await client.messages.create({ ...rest, stream: true });
  let seen = 0;
  for await (const _ of opened) {
    seen += 1;
    if (seen >= after) break;
  }
  return { events: seen };
}

async function count(client, params) {
  return await client.messages.countTokens(params);
}

async function models(client, params) {
  const found = [];
  for await (const model of client.models.list(params)) found.push(model);
  return found;
}

async function model(client, params) {
  return await client.models.retrieve(params.id);
}

function failure(error) {
  const classes = [];
  for (let kind = error.constructor; kind && kind.name; kind = Object.getPrototypeOf(kind)) classes.push(kind.name);
  return {
    classes,
    status: error.status ?? null,
    type: error.error?.error?.type ?? null,
    message: error.error?.error?.message ?? error.message,
    request_id: error.requestID ?? null,
  };
}

const operations = { create, stream, leave, count, models, model };

for await (const line of createInterface({ input: process.stdin })) {
  const order = JSON.parse(line);
  const { base_url: baseURL, api_key: apiKey, max_retries: maxRetries, timeout } = order.client;
  const client = new Anthropic({ baseURL, apiKey, maxRetries, timeout: timeout * 1000 });
  let answer;
  try {
    answer = { value: await operations[order.op](client, order.params) };
  } catch (error) {
    // An answer that breaks off while its JSON is read is a TypeError of fetch, which the SDK passes on.
    if (!(error instanceof Anthropic.AnthropicError) && error.message !== "terminated") throw error;
    answer = { error: failure(error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
