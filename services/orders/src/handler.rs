//! gRPC in, gRPC out: converts, and decides which status an outcome is.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use gantry::{
    auth::{self, Identity},
    config::Live,
    status::{self, Refusal},
};
use gantry_store::{Page, Timestamp};
use shop_proto::orders::v1::{
    CancelOrderRequest, CancelOrderResponse, GetOrderRequest, GetOrderResponse, ListOrdersRequest,
    ListOrdersResponse, PlaceOrderRequest, PlaceOrderResponse, WatchOrderRequest,
    WatchOrderResponse, orders_service_server::OrdersService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    changes::Changes,
    config::Orders as Config,
    convert,
    domain::{self, Order},
    placing::{Cancelled, Placing},
    store::{Placed, Store},
    watch,
};

/// The list that page tokens of this service belong to.
const ORDERS: &str = "orders";

/// The rpcs of this service.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The rows.
    pub store: Store,
    /// What moves them.
    pub placing: Placing,
    /// Who hears of it.
    pub changes: Changes,
    /// Settings as they are.
    pub config: Live<Config>,
    /// Cancelled when streams should end.
    pub draining: CancellationToken,
}

impl Orders {
    /// The caller's order. That another person has one of this name stays that person's business.
    async fn own(&self, caller: &Identity, order_id: &str) -> Result<Order, Status> {
        let order = self.store.find(&convert::id(order_id)).await?;
        order
            .filter(|order| order.account_id == caller.subject)
            .ok_or_else(|| Status::not_found("there is no such order"))
    }
}

#[tonic::async_trait]
impl OrdersService for Orders {
    async fn place_order(
        &self,
        request: Request<PlaceOrderRequest>,
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let lines = request.lines.into_iter();
        let lines = domain::lines(lines.map(|line| (line.sku, line.quantity.into())));
        let lines = lines.map_err(|error| {
            let field = format!("lines[{}].quantity", error.line);
            status::invalid_argument([(field, error.to_string())])
        })?;
        let id = uuid::Uuid::now_v7().to_string();
        let account = &caller.subject;
        let order = Order::place(id, account, &request.request_id, lines, Timestamp::now());
        let lines = order.lines.clone();
        let (order, claim) = match self.placing.place(order).await? {
            Placed::New(order, claim) => (order, Some(claim)),
            Placed::Known(order) if order.asks_for(&lines) => (order, None),
            Placed::Known(_) => {
                return Err(Status::already_exists(
                    "this request_id stands for an order with other lines",
                ));
            }
        };
        match claim {
            Some(claim) => self.placing.advance(order.clone(), claim).await?,
            // Somebody may be at work on it; then it is as far as it is.
            None => self.placing.take_up(&order.id).await?,
        }
        let order = self.own(&caller, &order.id).await?;
        Ok(Response::new(PlaceOrderResponse {
            order: Some(convert::order(order)),
        }))
    }

    async fn get_order(
        &self,
        request: Request<GetOrderRequest>,
    ) -> Result<Response<GetOrderResponse>, Status> {
        let caller = auth::caller(&request)?;
        let order = self.own(&caller, &request.get_ref().order_id).await?;
        Ok(Response::new(GetOrderResponse {
            order: Some(convert::order(order)),
        }))
    }

    async fn list_orders(
        &self,
        request: Request<ListOrdersRequest>,
    ) -> Result<Response<ListOrdersResponse>, Status> {
        let caller = auth::caller(&request)?;
        let request = request.into_inner();
        let page = Page::read(ORDERS, request.page_size, &request.page_token)
            .map_err(|error| status::invalid_argument([("page_token", error.to_string())]))?;
        let mut orders = self.store.list(&caller.subject, &page).await?;
        let next_page_token = page.cut(&mut orders, |order| order.id.clone());
        Ok(Response::new(ListOrdersResponse {
            orders: orders.into_iter().map(convert::order).collect(),
            next_page_token,
        }))
    }

    async fn cancel_order(
        &self,
        request: Request<CancelOrderRequest>,
    ) -> Result<Response<CancelOrderResponse>, Status> {
        let caller = auth::caller(&request)?;
        let order = self.own(&caller, &request.get_ref().order_id).await?;
        match self.placing.cancel(&order).await? {
            Cancelled::Done => {}
            Cancelled::TooLate => {
                return Err(Status::failed_precondition(
                    "a completed order cannot be cancelled",
                ));
            }
        }
        let order = self.own(&caller, &order.id).await?;
        Ok(Response::new(CancelOrderResponse {
            order: Some(convert::order(order)),
        }))
    }

    type WatchOrderStream = Pin<Box<dyn Stream<Item = Result<WatchOrderResponse, Status>> + Send>>;

    async fn watch_order(
        &self,
        request: Request<WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let caller = auth::caller(&request)?;
        // Listens before it reads: a change in between is heard, and seen to be known already.
        let order_id = convert::id(&request.get_ref().order_id);
        let listener = self
            .changes
            .listen(&order_id, self.config.load().watchers_max)
            .ok_or_else(|| Refusal::Watchers.status("too many orders are watched here"))?;
        let order = self.own(&caller, &order_id).await?;
        let watch = watch::watch(
            order,
            self.store.clone(),
            self.config.clone(),
            listener,
            self.draining.clone(),
        );
        let answers = watch.map(|order| {
            Ok(WatchOrderResponse {
                order: Some(convert::order(order?)),
            })
        });
        Ok(Response::new(answers.boxed()))
    }
}
