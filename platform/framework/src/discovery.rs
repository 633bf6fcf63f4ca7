//! From a name to endpoints, and back: what resolvers and registrars promise.
