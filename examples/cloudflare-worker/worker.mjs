// A receiver of callbacks as a Cloudflare Worker, in one file that needs no package: Web Crypto verifies.

// In production, not here but in D1 or a Durable Object, under a unique key: each isolate has its own memory.
const seen = new Set();

export default {
  async fetch(request, env, context) {
    if (!env.SIGNING_SECRET) {
      return new Response("SIGNING_SECRET is not set: wrangler secret put SIGNING_SECRET", { status: 500 });
    }
    const body = new Uint8Array(await request.arrayBuffer());
    if (!(await isGenuine(request.headers, body, env.SIGNING_SECRET))) {
      return new Response("the signature is not good", { status: 401 });
    }
    const event = JSON.parse(new TextDecoder().decode(body));
    if (event.data.metadata?.useful_until < Date.now() / 1000) {
      return new Response(null, { status: 410 }); // too late: it need not come again
    }
    const id = request.headers.get("webhook-id");
    if (!seen.has(id)) {
      seen.add(id);
      if (seen.size > 10_000) seen.delete(seen.values().next().value);
      context.waitUntil(work(event)); // has 30 s after the answer; what must not be lost goes into a Queue here
    }
    return new Response(null, { status: 204 });
  },
};

// Whether one of the signatures is ours, and the attempt not more than five minutes old: Standard Webhooks.
async function isGenuine(headers, body, secret) {
  const timestamp = headers.get("webhook-timestamp");
  if (!(Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300)) return false;
  const signed = await new Blob([`${headers.get("webhook-id")}.${timestamp}.`, body]).arrayBuffer();
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", bytes(secret.replace(/^whsec_/, "")), hmac, false, ["verify"]);
  for (const one of (headers.get("webhook-signature") ?? "").split(" ")) {
    if (/^v1,[A-Za-z0-9+/]{43}=$/.test(one) && (await crypto.subtle.verify("HMAC", key, bytes(one.slice(3)), signed))) {
      return true;
    }
  }
  return false;
}

const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

// Yours. Runs after the answer.
async function work({ type, data }) {
  let outcome = data.error;
  if (type === "job.completed") outcome = data.result ?? (await fetchResult(data.result_url)); // thin: has a link only
  if (type === "batch.completed") outcome = data.status; // how many jobs ended how
  console.log(type, data.id, JSON.stringify(outcome));
}

async function fetchResult(url) {
  const response = await fetch(url, { signal: AbortSignal.timeout(20_000) });
  if (!response.ok) throw new Error(`the result: ${response.status}`);
  return response.json();
}
