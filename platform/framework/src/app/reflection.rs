//! Describes the services to whoever asks: gRPC reflection, v1 and v1alpha.

use tonic_reflection::server::Builder;

use crate::server::{DescriptorError, Router};

/// What a service is named that describes the others.
pub(super) const SERVICE: &str = "grpc.reflection.v1.ServerReflection";

/// Why services cannot be described.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("read the descriptors of the services")]
    Descriptors(#[from] tonic_reflection::server::Error),
    #[error("serve reflection")]
    Router(#[from] DescriptorError),
}

/// Adds both versions of reflection for all that `router` has so far, and for themselves.
pub(super) fn add(router: Router) -> Result<Router, Error> {
    let descriptors = router.descriptors().to_vec();
    let names: Vec<_> = router.services().map(str::to_owned).collect();
    let described = || {
        let builder = descriptors
            .iter()
            .fold(Builder::configure(), |builder, set| {
                builder.register_encoded_file_descriptor_set(set)
            });
        let builder = names.iter().fold(builder, Builder::with_service_name);
        builder
            .with_service_name(SERVICE)
            .with_service_name("grpc.reflection.v1alpha.ServerReflection")
            .register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(
                tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
            )
            .include_reflection_service(false)
    };
    let router = router.add_plain(
        described().build_v1()?,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    )?;
    let router = router.add_plain(
        described().build_v1alpha()?,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    )?;
    Ok(router)
}
