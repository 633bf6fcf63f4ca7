// What page.html does: each protocol of the gateway that a browser can speak.
const told = {};
window.addEventListener("error", (event) => tell({ error: String(event.message) }));

async function tell(found) {
  await fetch("/found", { method: "POST", body: JSON.stringify(found) });
}

async function main() {
  const { createFileRegistry, fromBinary } = await import("@bufbuild/protobuf");
  const { FileDescriptorSetSchema } = await import("@bufbuild/protobuf/wkt");
  const { Code, ConnectError, createClient } = await import("@connectrpc/connect");
  const { createConnectTransport, createGrpcWebTransport } = await import("@connectrpc/connect-web");

  const query = new URLSearchParams(location.search);
  const baseUrl = `http://${query.get("gateway")}`;
  const transports = {
    grpcWeb: createGrpcWebTransport({ baseUrl }),
    connect: createConnectTransport({ baseUrl, useBinaryFormat: true }),
    connectJson: createConnectTransport({ baseUrl, useBinaryFormat: false }),
    connectGet: createConnectTransport({ baseUrl, useHttpGet: true }),
  };
  const services = {};
  for (const name of ["accounts", "catalog", "orders"]) {
    const set = await (await fetch(`/descriptors/${name}.binpb`)).arrayBuffer();
    const registry = createFileRegistry(fromBinary(FileDescriptorSetSchema, new Uint8Array(set)));
    const service = name[0].toUpperCase() + name.slice(1);
    services[name] = registry.getService(`shop.${name}.v1.${service}Service`);
  }
  const client = (name, transport) => createClient(services[name], transports[transport]);

  const person = { email: "browser@example.com", password: "correct horse battery" };
  await client("accounts", "connectJson").register(person);
  const { token } = await client("accounts", "connect").login(person);
  const headers = { authorization: `Bearer ${token}` };
  told.products = {};
  for (const transport of Object.keys(transports)) {
    const { products } = await client("catalog", transport).listProducts({ pageSize: 3 });
    told.products[transport] = products.length;
  }

  const orders = client("orders", "grpcWeb");
  const lines = [{ sku: "TEA-EARL-GREY", quantity: 1 }];
  const { order } = await orders.placeOrder({ requestId: "browser-1", lines }, { headers });
  const id = { orderId: order.orderId };
  told.watched = [];
  for await (const change of orders.watchOrder(id, { headers })) {
    told.watched.push(change.order.state);
    // The stream goes on until the order is final.
    if (told.watched.length === 1) await orders.cancelOrder(id, { headers });
  }
  told.refused = {};
  for (const transport of Object.keys(transports)) {
    const error = await client("orders", transport).getOrder(id).catch((error) => ConnectError.from(error));
    told.refused[transport] = Code[error.code];
  }

  const watch = await fetch(`${baseUrl}/v1/orders/${order.orderId}:watch`, { headers });
  const text = await watch.text();
  told.lines = text.trim().split("\n").map((line) => JSON.parse(line).order.state);
  told.other = await fetch(`http://${query.get("other")}/v1/products`).then(
    () => "answered",
    (error) => error.name,
  );
  await tell(told);
}

main().catch((error) => tell({ ...told, error: String(error?.stack ?? error) }));
