//! A catalog and payments whose calls a test lets through one step at a time.

use catalog::handler::Catalog;
use payments::handler::Payments;
use shop_proto::catalog::v1::{
    ConfirmRequest, ConfirmResponse, GetProductRequest, GetProductResponse, GetSalesSummaryRequest,
    GetSalesSummaryResponse, ImportProductsRequest, ImportProductsResponse, ListProductsRequest,
    ListProductsResponse, ListStockLevelsRequest, ListStockLevelsResponse, ReleaseRequest,
    ReleaseResponse, ReserveRequest, ReserveResponse, SeedProductsRequest, SeedProductsResponse,
    UpdateStockRequest, catalog_service_server::CatalogService,
};
use shop_proto::payments::v1::{
    ChargeRequest, ChargeResponse, GetPaymentRequest, GetPaymentResponse, RefundRequest,
    RefundResponse, payments_service_server::PaymentsService,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Request, Response, Status, Streaming};

/// Where a call stands that waits to be let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Reserve has arrived, and has done nothing yet.
    Reserve,
    /// Reserve is done, and not answered yet.
    Reserved,
    /// Charge has arrived, and has done nothing yet.
    Charge,
    /// Charge is done, and not answered yet.
    Charged,
    /// Confirm has arrived, and has done nothing yet.
    Confirm,
    /// Confirm is done, and not answered yet.
    Confirmed,
}

/// Calls that wait, in the order they came.
pub(crate) struct Steps(mpsc::Receiver<(Step, oneshot::Sender<()>)>);

/// A call that waits; it goes on when this is dropped.
pub(crate) struct Held(
    #[expect(dead_code, reason = "its drop is what counts")] oneshot::Sender<()>,
);

impl Steps {
    /// The next call that waits, which must be at `step`.
    pub(crate) async fn at(&mut self, step: Step) -> Held {
        let (at, held) = self.0.recv().await.unwrap();
        assert_eq!(step, at);
        Held(held)
    }

    /// Lets the next call through, whichever it is; false once there can be none.
    pub(crate) async fn any(&mut self) -> bool {
        self.0.recv().await.is_some()
    }

    /// Lets one call through these steps, each of which it must come to next.
    pub(crate) async fn pass(&mut self, steps: &[Step]) {
        for step in steps {
            drop(self.at(*step).await);
        }
    }
}

/// The rpcs of a service, held at each [`Step`].
#[derive(Clone)]
pub(crate) struct Stepped<S> {
    inner: S,
    steps: mpsc::Sender<(Step, oneshot::Sender<()>)>,
}

impl Steps {
    /// Holds the calls of both.
    pub(crate) fn of(
        catalog: Catalog,
        payments: Payments,
    ) -> (Stepped<Catalog>, Stepped<Payments>, Self) {
        let (steps, waiting) = mpsc::channel(8);
        let stepped = Stepped {
            inner: catalog,
            steps: steps.clone(),
        };
        let inner = payments;
        (stepped, Stepped { inner, steps }, Self(waiting))
    }
}

impl<S> Stepped<S> {
    async fn wait(&self, step: Step) {
        let (held, passed) = oneshot::channel();
        // A test that has seen enough lets everything through.
        if self.steps.send((step, held)).await.is_ok() {
            drop(passed.await);
        }
    }
}

#[tonic::async_trait]
impl CatalogService for Stepped<Catalog> {
    async fn reserve(
        &self,
        request: Request<ReserveRequest>,
    ) -> Result<Response<ReserveResponse>, Status> {
        self.wait(Step::Reserve).await;
        let response = self.inner.reserve(request).await;
        self.wait(Step::Reserved).await;
        response
    }

    async fn confirm(
        &self,
        request: Request<ConfirmRequest>,
    ) -> Result<Response<ConfirmResponse>, Status> {
        self.wait(Step::Confirm).await;
        let response = self.inner.confirm(request).await;
        self.wait(Step::Confirmed).await;
        response
    }

    async fn release(
        &self,
        request: Request<ReleaseRequest>,
    ) -> Result<Response<ReleaseResponse>, Status> {
        self.inner.release(request).await
    }

    async fn list_products(
        &self,
        request: Request<ListProductsRequest>,
    ) -> Result<Response<ListProductsResponse>, Status> {
        self.inner.list_products(request).await
    }

    async fn list_stock_levels(
        &self,
        request: Request<ListStockLevelsRequest>,
    ) -> Result<Response<ListStockLevelsResponse>, Status> {
        self.inner.list_stock_levels(request).await
    }

    async fn get_sales_summary(
        &self,
        request: Request<GetSalesSummaryRequest>,
    ) -> Result<Response<GetSalesSummaryResponse>, Status> {
        self.inner.get_sales_summary(request).await
    }

    async fn get_product(
        &self,
        request: Request<GetProductRequest>,
    ) -> Result<Response<GetProductResponse>, Status> {
        self.inner.get_product(request).await
    }

    async fn import_products(
        &self,
        request: Request<Streaming<ImportProductsRequest>>,
    ) -> Result<Response<ImportProductsResponse>, Status> {
        self.inner.import_products(request).await
    }

    async fn seed_products(
        &self,
        request: Request<Streaming<SeedProductsRequest>>,
    ) -> Result<Response<SeedProductsResponse>, Status> {
        self.inner.seed_products(request).await
    }

    type UpdateStockStream = <Catalog as CatalogService>::UpdateStockStream;

    async fn update_stock(
        &self,
        request: Request<Streaming<UpdateStockRequest>>,
    ) -> Result<Response<Self::UpdateStockStream>, Status> {
        self.inner.update_stock(request).await
    }
}

#[tonic::async_trait]
impl PaymentsService for Stepped<Payments> {
    async fn charge(
        &self,
        request: Request<ChargeRequest>,
    ) -> Result<Response<ChargeResponse>, Status> {
        self.wait(Step::Charge).await;
        let response = self.inner.charge(request).await;
        self.wait(Step::Charged).await;
        response
    }

    async fn refund(
        &self,
        request: Request<RefundRequest>,
    ) -> Result<Response<RefundResponse>, Status> {
        self.inner.refund(request).await
    }

    async fn get_payment(
        &self,
        request: Request<GetPaymentRequest>,
    ) -> Result<Response<GetPaymentResponse>, Status> {
        self.inner.get_payment(request).await
    }
}
