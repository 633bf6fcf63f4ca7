//! Describes the services to whoever asks: gRPC reflection, v1 and v1alpha.

use tonic::server::NamedService as _;
use tonic_reflection::pb::{
    v1::{
        self,
        server_reflection_server::{ServerReflection, ServerReflectionServer as V1},
    },
    v1alpha,
};

use crate::server::{
    DescriptorError, Router,
    reflection::{Alpha, Malformed, Reflection},
};

/// What services are named that describe the others: v1, and v1alpha.
pub(super) const SERVICES: [&str; 2] = [V1::<Reflection>::NAME, Alpha::<V1<Reflection>>::NAME];
/// What they say of themselves.
const OWN: [&[u8]; 2] = [v1::FILE_DESCRIPTOR_SET, v1alpha::FILE_DESCRIPTOR_SET];

/// Why services cannot be described.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("read the descriptors of the services")]
    Descriptors(#[from] Malformed),
    #[error("serve reflection")]
    Router(#[from] DescriptorError),
}

/// Adds reflection for all that `router` has so far, and for itself.
pub(super) fn add(router: Router) -> Result<Router, Error> {
    let names = router.services().chain(SERVICES);
    let sets = router.descriptors().iter().copied().chain(OWN);
    let described = Reflection::new(names.map(str::to_owned), sets)?;
    Ok(serve(router, described)?)
}

/// Adds `described` as both versions.
pub(super) fn serve(
    router: Router,
    described: impl ServerReflection,
) -> Result<Router, DescriptorError> {
    let server = V1::new(described);
    let router = router.add_plain(server.clone(), OWN[0])?;
    router.add_plain(Alpha::of(server), OWN[1])
}
