"""Calls the shop with code that grpcio-tools generates from proto/, as a customer in Python would.

    customer.py PROTO ACCOUNTS CATALOG ORDERS

Registers, logs in, joins the staff, imports products, updates stock, lists, places an order, watches
and cancels it; prints one JSON object of what it saw. Any surprise ends it with a traceback.
"""

import json
import subprocess
import sys
import tempfile
import uuid
from importlib import import_module

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def generate(proto, out):
    """Compiles every contract the shop uses; all four call kinds are among them."""
    files = [
        "buf/validate/validate.proto",
        "gantry/access/v1/access.proto",
        "google/api/annotations.proto",
        "google/api/http.proto",
        "shop/money/v1/money.proto",
        "shop/accounts/v1/accounts.proto",
        "shop/catalog/v1/catalog.proto",
        "shop/orders/v1/orders.proto",
    ]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"--python_out={out}", f"--grpc_python_out={out}", *files],
        check=True,
    )
    sys.path.insert(0, out)


def module(package, suffix):
    return import_module(f"shop.{package}.v1.{package}_pb2{suffix}")


def expect(code, call):
    """Makes a call that must fail with `code`; returns its error."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"wanted {code}, got {error.code()}: {error.details()}"
        return error
    raise AssertionError(f"wanted {code}, but the call succeeded")


def main(proto, accounts_at, catalog_at, orders_at):
    generate(proto, tempfile.mkdtemp())
    accounts_pb, catalog_pb, orders_pb = (module(name, "") for name in ("accounts", "catalog", "orders"))
    accounts = module("accounts", "_grpc").AccountsServiceStub(grpc.insecure_channel(accounts_at))
    catalog = module("catalog", "_grpc").CatalogServiceStub(grpc.insecure_channel(catalog_at))
    orders_channel = grpc.insecure_channel(orders_at)
    orders = module("orders", "_grpc").OrdersServiceStub(orders_channel)

    health = health_pb2_grpc.HealthStub(orders_channel)
    status = health.Check(health_pb2.HealthCheckRequest(service="shop.orders.v1.OrdersService"), timeout=10).status
    assert status == health_pb2.HealthCheckResponse.SERVING, status

    email, password = f"python-{uuid.uuid4()}@example.com", "correct horse battery"
    accounts.Register(accounts_pb.RegisterRequest(email=email, password=password), timeout=10)
    expect(
        grpc.StatusCode.ALREADY_EXISTS,
        lambda: accounts.Register(accounts_pb.RegisterRequest(email=email.upper(), password=password), timeout=10),
    )
    expect(
        grpc.StatusCode.UNAUTHENTICATED,
        lambda: accounts.Login(accounts_pb.LoginRequest(email=email, password="wrong"), timeout=10),
    )
    invalid = expect(
        grpc.StatusCode.INVALID_ARGUMENT,
        lambda: accounts.Register(accounts_pb.RegisterRequest(email="nobody", password="short"), timeout=10),
    )
    login = accounts.Login(accounts_pb.LoginRequest(email=email, password=password), timeout=10)
    me = [("authorization", f"Bearer {login.token}")]

    sku = f"PY-{uuid.uuid4().hex[:8].upper()}"
    rows = [
        catalog_pb.ImportProductsRequest(
            sku=f"{sku}-{number}", name=f"Thing {number}", price_minor_units=250, currency_code="EUR", initial_stock=10
        )
        for number in range(3)
    ]
    expect(grpc.StatusCode.UNAUTHENTICATED, lambda: catalog.ImportProducts(iter(rows), timeout=10))
    expect(grpc.StatusCode.PERMISSION_DENIED, lambda: catalog.ImportProducts(iter(rows), metadata=me, timeout=10))
    accounts.SetRoles(accounts_pb.SetRolesRequest(account_id=login.account_id, roles=["staff"]), timeout=10)
    login = accounts.Login(accounts_pb.LoginRequest(email=email, password=password), timeout=10)
    me = [("authorization", f"Bearer {login.token}")]
    imported = catalog.ImportProducts(iter(rows), metadata=me, timeout=10)
    levels = [
        answer
        for answer in catalog.UpdateStock(
            iter([catalog_pb.UpdateStockRequest(sku=f"{sku}-0", delta=5), catalog_pb.UpdateStockRequest(sku=f"{sku}-0", delta=-3)]),
            metadata=me,
            timeout=10,
        )
    ]
    listed, token = [], ""
    while True:
        page = catalog.ListProducts(catalog_pb.ListProductsRequest(page_size=2, page_token=token), timeout=10)
        listed += [product.sku for product in page.products]
        token = page.next_page_token
        if not token:
            break

    lines = [orders_pb.NewOrderLine(sku=f"{sku}-1", quantity=4)]
    wanted = orders_pb.PlaceOrderRequest(request_id=str(uuid.uuid4()), lines=lines)
    expect(grpc.StatusCode.UNAUTHENTICATED, lambda: orders.PlaceOrder(wanted, timeout=10))
    placed = orders.PlaceOrder(wanted, metadata=me, timeout=10).order
    again = orders.PlaceOrder(wanted, metadata=me, timeout=10).order
    assert placed.order_id == again.order_id, "the same request_id placed two orders"
    watch = orders.WatchOrder(orders_pb.WatchOrderRequest(order_id=placed.order_id), metadata=me, timeout=10)
    first = next(watch).order
    cancelled = orders.CancelOrder(orders_pb.CancelOrderRequest(order_id=placed.order_id), metadata=me, timeout=10).order
    states = [first.state] + [answer.order.state for answer in watch]
    left = catalog.GetProduct(catalog_pb.GetProductRequest(sku=f"{sku}-1"), timeout=10).product.available

    print(
        json.dumps(
            {
                "invalid": invalid.details(),
                "imported": imported.created_count,
                "levels": [answer.on_hand for answer in levels],
                "listed": sum(name.startswith(sku) for name in listed),
                "placed": orders_pb.OrderState.Name(placed.state),
                "cancelled": orders_pb.OrderState.Name(cancelled.state),
                "watched": [orders_pb.OrderState.Name(state) for state in states],
                "available_after_cancel": left,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
