//! Who may change what there is to buy.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use gantry::client::Channel;
use serde_json::json;
use shop_proto::{
    accounts::v1::{SetRolesRequest, accounts_service_client::AccountsServiceClient},
    catalog::v1::{
        GetProductRequest, ImportProductsRequest, UpdateStockRequest,
        catalog_service_client::CatalogServiceClient,
    },
};
use tonic::{Code, Request, Status, metadata::MetadataMap};

use super::{Shop, part, with};
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

/// What somebody may write into metadata to be taken for one of the staff.
const FORGED: [&str; 5] = [
    "roles",
    "role",
    "x-roles",
    "x-user-roles",
    "x-forwarded-groups",
];

impl Shop {
    /// Whether an import and a change of stock end with `expected` both ways, and an import by JSON
    /// does, for whoever shows `token` and says in metadata that they are staff.
    async fn expect_of_restock(&self, case: &str, token: &str, expected: Code) {
        let mut metadata = with((), token).metadata().clone();
        for name in FORGED {
            metadata.insert(name, "staff".parse().expect("a role"));
        }
        for (way, outcome) in self.restock(&metadata).await {
            let code = outcome.as_ref().map_or_else(Status::code, |()| Code::Ok);
            assert_eq!(expected, code, "{case}, {way}: {outcome:?}");
        }
        let bearer = format!("Bearer {token}");
        let mut headers = FORGED.map(|name| (name, "staff")).to_vec();
        headers.push(("authorization", &bearer));
        headers.push(("content-type", "application/x-ndjson"));
        let row = json!({"sku": SKU, "name": "Tea", "currencyCode": "EUR"}).to_string();
        let what = "POST /v1/products:import";
        let (status, answer) = self.ask(what, &headers, &row).await;
        let expected = match expected {
            Code::Ok => 200,
            Code::PermissionDenied => 403,
            _ => 401,
        };
        assert_eq!(expected, status, "{case}: {answer}");
        if status == 403 {
            assert!(answer.contains("MISSING_ROLE"), "{case}: {answer}");
        }
    }

    /// What becomes of giving an account a role at accounts by one of these ways.
    async fn promote(&self, at: Channel, token: &str, account: &str, role: &str) -> Code {
        let request = SetRolesRequest {
            account_id: account.to_owned(),
            roles: vec![role.to_owned()],
        };
        let mut accounts = AccountsServiceClient::new(at);
        let outcome = accounts.set_roles(with(request, token)).await;
        outcome.map_or_else(|status| status.code(), |_| Code::Ok)
    }
}

/// Goal: only whom whoever runs the shop has made one of the staff changes prices and stock: no
/// customer, whatever their address, their metadata or their forged token says; and only until the
/// role is taken away.
/// Method: a customer, one whose address looks important, a token whose claims were written anew, a
/// role given and taken by `gantry call`; each by gRPC at the gateway, at catalog itself, and by JSON.
/// Giving oneself a role by way of the gateway, and roles that cannot be given.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_staff_restocks() {
    let shop = Shop::open(&[]);
    for email in ["ada@example.org", "staff@example.org"] {
        shop.register(email).await;
        let token = shop.log_in(email).await;
        assert!(part(&token, 1).get("roles").is_none(), "{email}");
        let denied = Code::PermissionDenied;
        shop.expect_of_restock(email, &token, denied).await;
    }
    let customer = shop.log_in("ada@example.org").await;
    let mut claims = part(&customer, 1);
    let account = claims["sub"].as_str().expect("a name").to_owned();
    claims["roles"] = json!(["staff"]);
    let parts: Vec<_> = customer.split('.').collect();
    let forged = format!(
        "{}.{}.{}",
        parts[0],
        BASE64.encode(claims.to_string()),
        parts[2]
    );
    let refused = Code::Unauthenticated;
    shop.expect_of_restock("a forged role", &forged, refused)
        .await;
    let promoted = shop
        .promote(shop.edge(), &customer, &account, "staff")
        .await;
    assert_eq!(Code::PermissionDenied, promoted);

    let office = || channel(&[shop.system.address("accounts").parse().expect("an address")]);
    let nobody = "00000000-0000-4000-8000-000000000000";
    let unknown = shop.promote(office(), &customer, nobody, "staff").await;
    assert_eq!(Code::NotFound, unknown);
    for role in ["", "Staff", "staff\n", "night staff"] {
        let invalid = shop.promote(office(), &customer, &account, role).await;
        assert_eq!(Code::InvalidArgument, invalid, "{role:?}");
    }
    shop.system.set_roles(&account, &["night"]);
    let other = shop.log_in("ada@example.org").await;
    assert_eq!(json!(["night"]), part(&other, 1)["roles"]);
    shop.expect_of_restock("another role", &other, Code::PermissionDenied)
        .await;

    shop.system.set_roles(&account, &["staff", "night"]);
    // Tokens stay as they were signed.
    shop.expect_of_restock("before", &customer, Code::PermissionDenied)
        .await;
    let staff = shop.log_in("ada@example.org").await;
    assert_eq!(json!(["night", "staff"]), part(&staff, 1)["roles"]);
    shop.expect_of_restock("staff", &staff, Code::Ok).await;
    let promoted = shop.promote(shop.edge(), &staff, &account, "staff").await;
    assert_eq!(
        Code::PermissionDenied,
        promoted,
        "staff is not who runs the shop"
    );

    shop.system.set_roles(&account, &[]);
    let former = shop.log_in("ada@example.org").await;
    assert!(part(&former, 1).get("roles").is_none());
    shop.expect_of_restock("former staff", &former, Code::PermissionDenied)
        .await;
}
