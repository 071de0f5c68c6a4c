//! STUB
use crate::gateway::*;
impl Inner {
    pub(in crate::gateway) async fn websocket(
        &self,
        _r: &settings::WebSocketRoute,
        _p: http::request::Parts,
        _e: Exchange<'_>,
    ) -> Result<Answer, ClientError> {
        Err(ClientError::PushMethod)
    }
}
