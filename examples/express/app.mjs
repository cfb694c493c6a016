// A receiver of callbacks in Express: verifies each, drops repeats, answers at once and works afterwards.
//
// npm ci
// SIGNING_SECRET=whsec_… PORT=9001 node app.mjs
import express from "express";
import { Webhook } from "standardwebhooks";

if (!process.env.SIGNING_SECRET) {
  console.error("SIGNING_SECRET is not set: give it the relay's, whsec_…");
  process.exit(1);
}
const webhook = new Webhook(process.env.SIGNING_SECRET);
// In production, not here but in your database: the id and the body, under a unique key on the id.
const seen = new Set();

const app = express();

// raw, not json: the signature is over the bytes
app.post("/hook", express.raw({ type: () => true, limit: "32mb" }), (request, response) => {
  let event;
  try {
    event = webhook.verify(request.body, request.headers);
  } catch {
    return response.status(401).send("the signature is not good");
  }
  if (event.data.metadata?.useful_until < Date.now() / 1000) {
    return response.sendStatus(410); // too late: it need not come again
  }
  response.sendStatus(204);
  const id = request.headers["webhook-id"];
  if (seen.has(id)) return;
  seen.add(id);
  if (seen.size > 10_000) seen.delete(seen.values().next().value);
  work(event).catch(console.error);
});

// Yours. Runs after the answer.
async function work({ type, data }) {
  let outcome = data.error;
  if (type === "job.completed") outcome = data.result ?? (await fetchResult(data.result_url)); // thin: has a link only
  if (type === "batch.completed") outcome = data.status; // how many jobs ended how
  console.log(type, data.id, JSON.stringify(outcome));
}

async function fetchResult(url) {
  const response = await fetch(url, { signal: AbortSignal.timeout(30_000) });
  if (!response.ok) throw new Error(`the result: ${response.status}`);
  return response.json();
}

app.listen(Number(process.env.PORT ?? 9001), process.env.HOST ?? "127.0.0.1");
