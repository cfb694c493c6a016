// Verifies callbacks with npm's svix and standardwebhooks, and answers 204 only where both agree.
// Usage: node receiver.mjs SECRET   Prints its port, then one JSON line per callback.
import { createServer } from "node:http";
import { Webhook as Standard } from "standardwebhooks";
import { Webhook as Svix } from "svix";

const secret = process.argv[2];
const verifiers = [new Standard(secret), new Svix(secret)];

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString("utf8");
    try {
      const [first, second] = verifiers.map((verifier) => verifier.verify(body, request.headers));
      console.log(JSON.stringify({ type: first.type, id: second.data.id, webhook_id: request.headers["webhook-id"] }));
      response.writeHead(204).end();
    } catch (error) {
      console.log(JSON.stringify({ error: String(error) }));
      response.writeHead(401).end();
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(JSON.stringify({ port: server.address().port })));
