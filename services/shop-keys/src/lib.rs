//! Reads the public keys of the accounts service, for those that verify its tokens.

use gantry::{
    auth::{Fetch, PublicKey},
    client::Channel,
};
use shop_proto::accounts::v1::{
    GetJwksRequest, Jwk, accounts_service_client::AccountsServiceClient,
};

/// Reads public keys from the accounts service; keys of other kinds are left out.
pub fn keys_of(accounts: AccountsServiceClient<Channel>) -> impl Fetch {
    move || {
        let mut accounts = accounts.clone();
        async move {
            let response = accounts.get_jwks(GetJwksRequest {}).await?.into_inner();
            let ours = |key: &Jwk| key.kty == "OKP" && key.crv == "Ed25519" && key.alg == "EdDSA";
            let keys = response.keys.into_iter().filter(ours);
            Ok(keys
                .map(|key| PublicKey {
                    kid: key.kid,
                    x: key.x,
                })
                .collect())
        }
    }
}
