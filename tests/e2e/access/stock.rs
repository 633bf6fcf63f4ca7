//! Who may change what there is to buy.

use gantry::client::Channel;
use shop_proto::catalog::v1::{
    GetProductRequest, ImportProductsRequest, UpdateStockRequest,
    catalog_service_client::CatalogServiceClient,
};
use tonic::{Code, Request, Status, metadata::MetadataMap};

use super::{Shop, with};
use crate::support::channel;

/// A product that nobody has imported yet.
const SKU: &str = "NEW-TEA";

impl Shop {
    /// The catalog by way of the gateway, and directly.
    fn catalogs(&self) -> [(&'static str, CatalogServiceClient<Channel>); 2] {
        [
            ("gateway", CatalogServiceClient::new(self.edge())),
            (
                "service",
                CatalogServiceClient::new(channel(&[self.catalog])),
            ),
        ]
    }

    /// An import and a change of stock with this metadata, both ways: what became of each.
    pub(super) async fn restock(
        &self,
        metadata: &MetadataMap,
    ) -> Vec<(String, Result<(), Status>)> {
        let mut outcomes = Vec::new();
        for (way, mut catalog) in self.catalogs() {
            let row = ImportProductsRequest {
                sku: SKU.to_owned(),
                name: "Someone's tea".to_owned(),
                currency_code: "EUR".to_owned(),
                initial_stock: 1,
                ..ImportProductsRequest::default()
            };
            let mut rows = Request::new(tokio_stream::iter([row]));
            *rows.metadata_mut() = metadata.clone();
            let imported = catalog.import_products(rows).await.map(drop);
            outcomes.push((format!("ImportProducts, {way}"), imported));
            let change = UpdateStockRequest {
                sku: SKU.to_owned(),
                delta: 1,
            };
            let mut changes = Request::new(tokio_stream::iter([change]));
            *changes.metadata_mut() = metadata.clone();
            let updated = match catalog.update_stock(changes).await {
                Ok(answers) => answers.into_inner().message().await.map(drop),
                Err(refused) => Err(refused),
            };
            outcomes.push((format!("UpdateStock, {way}"), updated));
        }
        outcomes
    }

    /// Whether both ways refuse both methods as UNAUTHENTICATED, without telling the token.
    pub(super) async fn refuses_to_restock(&self, case: &str, metadata: &MetadataMap) {
        for (way, outcome) in self.restock(metadata).await {
            let refused = outcome.expect_err(case);
            assert_eq!(
                Code::Unauthenticated,
                refused.code(),
                "{case}, {way}: {refused:?}"
            );
            let token = metadata.get("authorization");
            let token = token.and_then(|it| it.to_str().ok()?.strip_prefix("Bearer "));
            let shown = format!("{refused:?}");
            assert!(token.is_none_or(|it| !shown.contains(it)), "{case}, {way}");
        }
    }
}

/// Method, continued: what is public is had without a token, and shows that nothing was imported
/// before the good one.
pub(super) async fn restocks(shop: &Shop, good: &str) {
    let get = GetProductRequest {
        sku: SKU.to_owned(),
    };
    for (way, mut catalog) in shop.catalogs() {
        let missing = catalog.get_product(get.clone()).await.expect_err(way);
        assert_eq!(Code::NotFound, missing.code(), "{way}: {missing:?}");
    }
    for (way, outcome) in shop.restock(with((), good).metadata()).await {
        outcome.unwrap_or_else(|status| panic!("{way}: {status:?}"));
    }
    for (way, mut catalog) in shop.catalogs() {
        let product = catalog.get_product(get.clone()).await.expect(way);
        let product = product.into_inner().product.expect("a product");
        assert_eq!(3, product.available, "{way}: one, and one more each way");
    }
}
