//! What a stream has of one subject: asked at its leader, never at a copy that may be behind.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{InfoError, RawMessageErrorKind, Stream};
use futures_util::StreamExt;
use std::error::Error;

/// Why a stream could not be asked about a subject.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is no such stream.
    #[error("the stream is not there")]
    NoStream,
    /// It gives no answer, or one that makes no sense.
    #[error("{0}")]
    Failed(String),
}

/// The newest message of a subject, from the stream's leader.
///
/// Servers of 2.9 end themselves now and then when they are asked for the newest of a subject that has none, so it is
/// asked first whether there is one.
///
/// # Errors
/// When it can't be asked.
pub async fn newest_of(stream: &Stream<()>, subject: &str) -> Result<Option<StreamMessage>, AskError> {
    if count_of(stream, subject).await? == 0 {
        return Ok(None);
    }
    match stream.raw_message_builder().last_by_subject(subject.to_owned()).send().await {
        Ok(message) => Ok(Some(message)),
        Err(error) => match error.kind() {
            RawMessageErrorKind::NoMessageFound => Ok(None),
            RawMessageErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                Err(AskError::NoStream)
            }
            _ => Err(AskError::Failed(error.to_string())),
        },
    }
}

/// How many messages of a subject there are.
///
/// # Errors
/// When it can't be asked.
pub async fn count_of(stream: &Stream<()>, subject: &str) -> Result<usize, AskError> {
    let failed = |error: InfoError| {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<async_nats::jetstream::Error>());
        match cause {
            Some(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => AskError::NoStream,
            _ => AskError::Failed(error.to_string()),
        }
    };
    let mut subjects = stream.info_with_subjects(subject).await.map_err(failed)?;
    match subjects.next().await {
        None => Ok(0),
        Some(Ok((_, count))) => Ok(count),
        Some(Err(error)) => Err(failed(error)),
    }
}
