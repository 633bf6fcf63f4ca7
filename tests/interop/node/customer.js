// Calls the shop through the gateway by @grpc/grpc-js, as a customer in Node would.
//
//     customer.js PROTO GATEWAY ACCOUNTS
//
// Registers, logs in, joins the staff at the port of accounts itself, imports products, updates stock,
// lists, places an order, watches and cancels it; prints one JSON object of what it saw. Any surprise ends it with a stack.
"use strict";

const assert = require("node:assert");
const { once } = require("node:events");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [proto, gateway, office] = process.argv.slice(2);
const files = ["accounts", "catalog", "orders"].map((name) => `shop/${name}/v1/${name}.proto`);
const options = { includeDirs: [proto], longs: String, enums: String, defaults: true };
const { shop } = grpc.loadPackageDefinition(loader.loadSync(files, options));
const plain = grpc.credentials.createInsecure();
const accounts = new shop.accounts.v1.AccountsService(gateway, plain);
const catalog = new shop.catalog.v1.CatalogService(gateway, plain);
const orders = new shop.orders.v1.OrdersService(gateway, plain);

// One answer to one message.
function call(client, method, request, metadata = new grpc.Metadata()) {
  const deadline = new Date(Date.now() + 20_000);
  return new Promise((resolve, reject) => {
    client[method](request, metadata, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

async function all(stream) {
  const messages = [];
  for await (const message of stream) messages.push(message);
  return messages;
}

async function main() {
  const told = {};
  const person = { email: "node@example.com", password: "correct horse battery" };
  await call(accounts, "Register", person);
  const taken = await call(accounts, "Register", person).catch((error) => error);
  assert.equal(taken.code, grpc.status.ALREADY_EXISTS, taken);
  const invalid = await call(accounts, "Register", { email: "nobody" }).catch((error) => error);
  assert.equal(invalid.code, grpc.status.INVALID_ARGUMENT, invalid);
  assert.equal(invalid.metadata.get("grpc-status-details-bin").length, 1);
  const { token, accountId } = await call(accounts, "Login", person);
  const metadata = new grpc.Metadata();
  metadata.set("authorization", `Bearer ${token}`);

  const denied = await new Promise((resolve) => {
    const rows = catalog.ImportProducts(metadata, (error) => resolve(error));
    rows.end();
  });
  assert.equal(denied.code, grpc.status.PERMISSION_DENIED, denied);
  const staff = { accountId, roles: ["staff"] };
  const outside = await call(accounts, "SetRoles", staff, metadata).catch((error) => error);
  assert.equal(outside.code, grpc.status.PERMISSION_DENIED, outside);
  await call(new shop.accounts.v1.AccountsService(office, plain), "SetRoles", staff);
  const promoted = await call(accounts, "Login", person);
  metadata.set("authorization", `Bearer ${promoted.token}`);

  told.imported = await new Promise((resolve, reject) => {
    const rows = catalog.ImportProducts(metadata, (error, answer) => (error ? reject(error) : resolve(answer.createdCount)));
    for (const number of [0, 1, 2]) {
      rows.write({ sku: `NODE-${number}`, name: "A thing", priceMinorUnits: 100, currencyCode: "EUR", initialStock: 5 });
    }
    rows.end();
  });
  const updates = catalog.UpdateStock(metadata);
  told.levels = [];
  for (const delta of [10, -3]) {
    updates.write({ sku: "NODE-0", delta });
    // Each after the answer to the one before: both ways at once.
    const [level] = await once(updates, "data");
    told.levels.push(level.onHand);
  }
  updates.end();
  await once(updates, "end");
  const { products } = await call(catalog, "ListProducts", { pageSize: 500 });
  told.listed = products.filter(({ sku }) => sku.startsWith("NODE-")).length;

  const lines = [{ sku: "NODE-1", quantity: 2 }];
  const { order } = await call(orders, "PlaceOrder", { requestId: "node-1", lines }, metadata);
  told.placed = order.state;
  const id = { orderId: order.orderId };
  const watch = orders.WatchOrder(id, metadata);
  const watched = all(watch);
  told.cancelled = (await call(orders, "CancelOrder", id, metadata)).order.state;
  told.watched = (await watched).at(-1).order.state;
  const stranger = await call(orders, "GetOrder", id).catch((error) => error);
  assert.equal(stranger.code, grpc.status.UNAUTHENTICATED, stranger);
  console.log(JSON.stringify(told));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
