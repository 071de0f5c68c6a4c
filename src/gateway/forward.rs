//! STUB
use crate::gateway::settings::ProxyRoute;
use crate::server::request_id::RequestId;
use crate::server::{Answer, Peer, Request};
use crate::upstream::{UpstreamError, Upstreams};
/// x
pub async fn forward(
    u: &Upstreams,
    route: &ProxyRoute,
    request: Request,
    _peer: &Peer,
    _id: RequestId,
) -> Result<Answer, UpstreamError> {
    u.send(&route.upstream, request).await.map(Answer::Response)
}
