// Opens page.html in a headless browser and prints what it found, one JSON object.
//
//     browse.js BROWSER MODULES DESCRIPTORS PORT GATEWAY OTHER
//
// The page is served here, at an origin of its own: GATEWAY lets it ask, OTHER does not.
"use strict";

const { spawn } = require("node:child_process");
const fs = require("node:fs");
const http = require("node:http");
const os = require("node:os");
const path = require("node:path");

const [browser, modules, descriptors, port, gateway, other] = process.argv.slice(2);
const types = { ".js": "text/javascript", ".html": "text/html", ".binpb": "application/octet-stream" };
const folders = { modules, descriptors, page: __dirname };

const server = http.createServer((request, response) => {
  const { pathname } = new URL(request.url, "http://page");
  if (request.method === "POST" && pathname === "/found") {
    let found = "";
    request.on("data", (data) => (found += data));
    request.on("end", () => end(found));
    return;
  }
  const [, folder, ...rest] = pathname.split("/");
  const file = path.join(folders[folder] ?? "/nowhere", ...rest);
  fs.readFile(file, (error, content) => {
    const type = types[path.extname(file)] ?? "text/plain";
    response.writeHead(error ? 404 : 200, { "content-type": type });
    response.end(error ? "" : content);
  });
});

const profile = fs.mkdtempSync(path.join(os.tmpdir(), "browse-"));
let child;
let said = "";

function end(found) {
  if (found) console.log(found);
  else console.error(`the page found nothing in time:\n${said.slice(-4000)}`);
  child.on("close", () => {
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    process.exit(found ? 0 : 1);
  });
  // With the processes of its own.
  process.kill(-child.pid, "SIGKILL");
}

server.listen(Number(port), "127.0.0.1", () => {
  const page = `http://127.0.0.1:${port}/page/page.html?gateway=${gateway}&other=${other}`;
  const options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--enable-logging=stderr"];
  child = spawn(browser, [...options, `--user-data-dir=${profile}`, page], {
    stdio: ["ignore", "ignore", "pipe"],
    detached: true,
  });
  child.stderr.on("data", (data) => (said += data));
  child.on("error", (error) => {
    said += error;
    end("");
  });
  setTimeout(() => end(""), 60_000);
});
