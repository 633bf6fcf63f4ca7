//! Describes the services to whoever asks: gRPC reflection, v1 and v1alpha.

use tonic::server::NamedService as _;
use tonic_reflection::pb::{
    v1::{self, server_reflection_server::ServerReflectionServer as V1},
    v1alpha::{self, server_reflection_server::ServerReflectionServer as V1Alpha},
};

use crate::server::{
    DescriptorError, Router,
    reflection::{Malformed, Reflection},
};

/// What a service is named that describes the others.
pub(super) const SERVICE: &str = "grpc.reflection.v1.ServerReflection";

/// Why services cannot be described.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("read the descriptors of the services")]
    Descriptors(#[from] Malformed),
    #[error("serve reflection")]
    Router(#[from] DescriptorError),
}

/// Adds both versions of reflection for all that `router` has so far, and for themselves.
pub(super) fn add(router: Router) -> Result<Router, Error> {
    let own = [v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];
    let names = router
        .services()
        .chain([V1::<Reflection>::NAME, V1Alpha::<Reflection>::NAME]);
    let sets = router.descriptors().iter().copied().chain(own);
    let described = Reflection::new(names.map(str::to_owned), sets)?;
    let router = router.add_plain(V1::new(described.clone()), own[0])?;
    let router = router.add_plain(V1Alpha::new(described), own[1])?;
    Ok(router)
}
