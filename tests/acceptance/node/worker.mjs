// Serves a Cloudflare Worker's module with Node's own Request and Response.
// Usage: SIGNING_SECRET=… node worker.mjs MODULE PORT
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const [module, port] = process.argv.slice(2);
const worker = (await import(pathToFileURL(module))).default;

const server = createServer(async (incoming, outgoing) => {
  if (incoming.url === "/ready") return outgoing.writeHead(204).end();
  const chunks = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const { method, headers, url } = incoming;
  const body = method === "GET" ? undefined : Buffer.concat(chunks);
  const request = new Request(`http://127.0.0.1:${port}${url}`, { method, headers, body });
  const context = { waitUntil: (promise) => promise.catch(console.error) };
  const response = await worker.fetch(request, { SIGNING_SECRET: process.env.SIGNING_SECRET }, context);
  outgoing.writeHead(response.status, Object.fromEntries(response.headers)).end(await response.text());
});
server.listen(Number(port), "127.0.0.1");
