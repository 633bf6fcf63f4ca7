//! gRPC in, gRPC out: converts, and decides which status an outcome is.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use gantry::{config::Live, status};
use gantry_store::{Page, Timestamp};
use shop_proto::catalog::v1::{
    ConfirmRequest, ConfirmResponse, GetProductRequest, GetProductResponse, GetSalesSummaryRequest,
    GetSalesSummaryResponse, ImportProductsRequest, ImportProductsResponse, Line,
    ListProductsRequest, ListProductsResponse, ListStockLevelsRequest, ListStockLevelsResponse,
    ReleaseRequest, ReleaseResponse, ReserveRequest, ReserveResponse, SeedProductsRequest,
    SeedProductsResponse, StockUpdateResult, UpdateStockRequest, UpdateStockResponse,
    catalog_service_server::CatalogService,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    config::Reservations,
    convert,
    domain::{self, Demand, Sku, demand},
    import::Import,
    store::{Adjusted, Confirmed, Reserved, Store},
};

/// The lists that page tokens of this service belong to.
const PRODUCTS: &str = "products";
const STOCK_LEVELS: &str = "stock levels";

/// Days of a summary where nobody says how many.
const DAYS: i64 = 7;

/// The rpcs of this service.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Store,
    reservations: Live<Reservations>,
    draining: CancellationToken,
}

impl Catalog {
    /// The rpcs over these parts; streams end once `draining` is cancelled.
    #[must_use]
    pub fn new(
        store: Store,
        reservations: Live<Reservations>,
        draining: CancellationToken,
    ) -> Self {
        Self {
            store,
            reservations,
            draining,
        }
    }

    /// Imports rows as they come in.
    async fn import(
        &self,
        mut rows: impl Stream<Item = Result<ImportProductsRequest, Status>> + Unpin,
    ) -> Result<ImportProductsResponse, Status> {
        let mut import = Import::new(self.store.clone());
        while let Some(row) = rows.try_next().await? {
            import.add(convert::row(row)).await?;
        }
        Ok(import.finish().await?)
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl CatalogService for Catalog {
    async fn list_products(
        &self,
        request: Request<ListProductsRequest>,
    ) -> Result<Response<ListProductsResponse>, Status> {
        let request = request.into_inner();
        let page = page(PRODUCTS, request.page_size, &request.page_token)?;
        let mut products = self.store.list(&page).await?;
        let next_page_token = page.cut(&mut products, |product| product.sku.to_string());
        Ok(Response::new(ListProductsResponse {
            products: products.into_iter().map(convert::product).collect(),
            next_page_token,
        }))
    }

    async fn get_product(
        &self,
        request: Request<GetProductRequest>,
    ) -> Result<Response<GetProductResponse>, Status> {
        let sku = sku("sku", &request.into_inner().sku)?;
        let product = self.store.get(&sku).await?;
        let product = product.ok_or_else(|| Status::not_found("there is no such product"))?;
        Ok(Response::new(GetProductResponse {
            product: Some(convert::product(product)),
        }))
    }

    async fn list_stock_levels(
        &self,
        request: Request<ListStockLevelsRequest>,
    ) -> Result<Response<ListStockLevelsResponse>, Status> {
        let request = request.into_inner();
        let page = page(STOCK_LEVELS, request.page_size, &request.page_token)?;
        let mut levels = self.store.stock_levels(&page).await?;
        let next_page_token = page.cut(&mut levels, |level| level.sku.clone());
        Ok(Response::new(ListStockLevelsResponse {
            stock_levels: levels.into_iter().map(convert::stock_level).collect(),
            next_page_token,
        }))
    }

    async fn get_sales_summary(
        &self,
        request: Request<GetSalesSummaryRequest>,
    ) -> Result<Response<GetSalesSummaryResponse>, Status> {
        let days = match request.into_inner().days {
            0 => DAYS,
            days => days.into(),
        };
        let today = domain::day(Timestamp::now().seconds());
        let days = self.store.sales_after(today - days).await?;
        Ok(Response::new(GetSalesSummaryResponse {
            days: days.into_iter().map(convert::day).collect(),
        }))
    }

    async fn import_products(
        &self,
        request: Request<Streaming<ImportProductsRequest>>,
    ) -> Result<Response<ImportProductsResponse>, Status> {
        let imported = self.import(request.into_inner()).await?;
        Ok(Response::new(imported))
    }

    async fn seed_products(
        &self,
        request: Request<Streaming<SeedProductsRequest>>,
    ) -> Result<Response<SeedProductsResponse>, Status> {
        // A message without a product is a row without anything: rejected like one.
        let rows = request.into_inner();
        let rows = rows.map_ok(|message| message.product.unwrap_or_default());
        let seeded = self.import(rows).await?;
        Ok(Response::new(SeedProductsResponse {
            created_count: seeded.created_count,
            updated_count: seeded.updated_count,
            rejected_count: seeded.rejected_count,
            rejected_rows: seeded.rejected_rows,
        }))
    }

    async fn reserve(
        &self,
        request: Request<ReserveRequest>,
    ) -> Result<Response<ReserveResponse>, Status> {
        let request = request.into_inner();
        let id = convert::id(&request.reservation_id);
        let demand = read_demand(&request.lines)?;
        let now = Timestamp::now();
        let expires_at = now.after(self.reservations.load().lifetime);
        let reserved = self.store.reserve(&id, &demand, now, expires_at).await?;
        let response = match reserved {
            Reserved::Done(reservation) => ReserveResponse {
                reservation: Some(convert::reservation(reservation)),
                shortages: Vec::new(),
            },
            Reserved::Short(shortages) => ReserveResponse {
                reservation: None,
                shortages: shortages.iter().map(convert::shortage).collect(),
            },
            Reserved::Different => {
                return Err(Status::already_exists(
                    "this reservation_id stands for other lines",
                ));
            }
            Reserved::Released => return Err(released()),
        };
        Ok(Response::new(response))
    }

    async fn confirm(
        &self,
        request: Request<ConfirmRequest>,
    ) -> Result<Response<ConfirmResponse>, Status> {
        let id = convert::id(&request.into_inner().reservation_id);
        match self.store.confirm(&id, Timestamp::now()).await? {
            Confirmed::Done(reservation) => Ok(Response::new(ConfirmResponse {
                reservation: Some(convert::reservation(reservation)),
            })),
            Confirmed::Released => Err(released()),
            Confirmed::Unknown => Err(Status::not_found("there is no such reservation")),
        }
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        let id = convert::id(&request.into_inner().reservation_id);
        self.store.release(&id, Timestamp::now()).await?;
        Ok(Response::new(ReleaseResponse {}))
    }

    type UpdateStockStream = Answers<UpdateStockResponse>;

    /// Each change is applied when the one before is answered: the caller's stream is read no
    /// faster than answers are taken.
    async fn update_stock(
        &self,
        request: Request<Streaming<UpdateStockRequest>>,
    ) -> Result<Response<Self::UpdateStockStream>, Status> {
        let Self {
            store, draining, ..
        } = self.clone();
        let changes = request.into_inner();
        let answers = stream::try_unfold(changes, move |mut changes| {
            let (store, draining) = (store.clone(), draining.clone());
            async move {
                // Cancel-safe: a message is taken whole or not at all, and a change that was
                // taken is applied below, outside the race.
                let next = tokio::select! {
                    biased;
                    next = changes.message() => next?,
                    () = draining.cancelled() => {
                        return Err(status::draining());
                    }
                };
                let Some(change) = next else { return Ok(None) };
                let answer = adjust(&store, change).await?;
                Ok(Some((answer, changes)))
            }
        });
        Ok(Response::new(answers.boxed()))
    }
}

async fn adjust(store: &Store, change: UpdateStockRequest) -> Result<UpdateStockResponse, Status> {
    let sku = sku("sku", &change.sku)?;
    let adjusted = store.adjust(&sku, change.delta.into()).await?;
    let (result, stock) = match adjusted {
        Adjusted::Applied(stock) => (StockUpdateResult::Applied, Some(stock)),
        Adjusted::OutOfRange(stock) => (StockUpdateResult::OutOfRange, Some(stock)),
        Adjusted::UnknownSku => (StockUpdateResult::UnknownSku, None),
    };
    Ok(UpdateStockResponse {
        sku: change.sku,
        result: result.into(),
        on_hand: stock.map_or(0, |stock| stock.on_hand),
        reserved: stock.map_or(0, |stock| stock.reserved),
    })
}

fn released() -> Status {
    Status::failed_precondition("this reservation was released or has expired")
}

fn read_demand(lines: &[Line]) -> Result<Demand, Status> {
    let lines = lines.iter().enumerate().map(|(at, line)| {
        let sku = sku(&format!("lines[{at}].sku"), &line.sku)?;
        Ok((sku, i64::from(line.quantity)))
    });
    Ok(demand(lines.collect::<Result<Vec<_>, Status>>()?))
}

fn sku(field: &str, text: &str) -> Result<Sku, Status> {
    Sku::parse(text).map_err(|error| status::invalid_argument([(field, error.to_string())]))
}

fn page(list: &'static str, size: i32, token: &str) -> Result<Page, Status> {
    Page::read(list, size, token)
        .map_err(|error| status::invalid_argument([("page_token", error.to_string())]))
}
