//! The JetStream stream: made where it is missing, asked what it holds, read and written.
//!
//! One stream has all channels, a subject each under `<prefix>.ch`. The server repeats each stored message under
//! `<prefix>.live`, with its number and that of the channel's message before it: that is what followers subscribe to, so
//! that an instance gets the channels it has sessions for, and no others.

use crate::bus::envelope;
use crate::bus::nats::newest::{count_of, newest_of};
use crate::bus::nats::subject;
use crate::bus::settings::NatsSettings;
use crate::hub::clock;
use crate::hub::policy::{ChannelPolicies, ChannelPolicy};
use crate::model::channel::ChannelName;
use crate::model::message::Message;
use async_nats::Client;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::context::{GetStreamErrorKind, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, Info, Republish, Stream};
use async_nats::jetstream::{self, Context, ErrorCode};
use futures_util::StreamExt;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long an answer may take.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A channel's place is known for this long at least after its last message, as in the embedded bus.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Messages asked for at once.
const PAGE_MESSAGES_MAX: usize = 256;
/// A mark is stored this often, whatever happens: the stream's first message then tells how far back it goes.
pub const MARK_EVERY_MS: u64 = 60_000;
/// When a message was published, in milliseconds since 1970.
pub const PUBLISHED_AT: &str = "Pushbridge-Published";

/// The stream.
pub struct Journal {
    client: Client,
    context: Context,
    stream: Stream<()>,
    name: String,
    prefix: String,
    wanted: Wanted,
    /// Counts who asks for facts.
    tickets: AtomicU64,
    asked: tokio::sync::Mutex<(u64, Result<Facts, String>)>,
}

/// What the stream has to keep.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    per_channel: i64,
    age: Duration,
    window: Duration,
}

/// What is true of the whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Which life of the stream: when it was made, in milliseconds since 1970.
    pub epoch: u64,
    /// The number of the oldest message.
    pub first: u64,
    /// The number of the newest message ever.
    pub last: u64,
    /// The most messages it keeps of a channel.
    pub per_channel_max: Option<u64>,
}

/// What a channel's history held.
#[derive(Debug, Default)]
pub struct History {
    /// Messages with their numbers, oldest first.
    pub messages: Vec<(u64, Message)>,
    /// How many older ones this instance does not keep, and the newest such.
    pub passed_over: (u64, u64),
}

/// What became of a message.
#[derive(Debug)]
pub enum Stored {
    /// It has this number.
    At(u64),
    /// Its id is known: the first one has this number.
    Duplicate(u64),
    /// The channel's newest message has another number than was expected.
    Moved,
}

impl Wanted {
    /// What the policies and the idempotency window ask for.
    pub fn of(policies: &ChannelPolicies, window: Duration) -> Self {
        let all = || policies.iter().map(|(_, policy)| policy).chain([policies.default_policy()]);
        let messages = all().map(|policy| policy.history_messages_max.max(crate::hub::log::LIVE_WINDOW_MESSAGES)).max();
        let age_ms = all().map(|policy| policy.history_age_ms_max).max();
        let age = Duration::from_millis(age_ms.unwrap_or(0)).max(REMEMBERED).max(window);
        Self { per_channel: messages.unwrap_or(0) as i64, age, window: window.max(Duration::from_secs(1)) }
    }
}

impl Journal {
    /// The stream that the settings name.
    ///
    /// # Errors
    /// When the name can't be one.
    pub async fn new(client: Client, settings: &NatsSettings, wanted: Wanted) -> Result<Self, String> {
        let mut context = jetstream::new(client.clone());
        context.set_timeout(ANSWER_TIMEOUT);
        let stream = context.get_stream_no_info(&settings.stream).await.map_err(|error| error.to_string())?;
        Ok(Self {
            client,
            context,
            stream,
            name: settings.stream.clone(),
            prefix: settings.prefix.clone(),
            wanted,
            tickets: AtomicU64::new(0),
            asked: tokio::sync::Mutex::new((0, Err("not asked yet".to_owned()))),
        })
    }

    /// The connection.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The JetStream account.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Where the channel's live messages come.
    pub fn live_subject(&self, channel: &ChannelName) -> String {
        subject::of_channel(&format!("{}.live", self.prefix), channel)
    }

    fn subject(&self, channel: &ChannelName) -> String {
        subject::of_channel(&format!("{}.ch", self.prefix), channel)
    }

    /// What is true of the stream no earlier than this was called. Those who ask at once share an answer.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn facts(&self) -> Result<Facts, String> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed) + 1;
        let mut asked = self.asked.lock().await;
        if asked.0 < ticket {
            let before = self.tickets.load(Ordering::Relaxed);
            let info = self.info_or_make().await;
            *asked = (before, info.map(|info| facts_of(&info)));
        }
        asked.1.clone()
    }

    async fn info_or_make(&self) -> Result<Info, String> {
        match self.context.get_stream(&self.name).await {
            Ok(stream) => Ok(stream.cached_info().clone()),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    let made = self.context.create_stream(self.config()).await;
                    made.map(|stream| stream.cached_info().clone()).map_err(|error| error.to_string())
                }
                GetStreamErrorKind::JetStream(cause) => Err(cause.to_string()),
                _ => Err(error.to_string()),
            },
        }
    }

    /// Makes the stream keep what is wanted, if it keeps less.
    ///
    /// # Errors
    /// When it can't be asked, or is of another make.
    pub async fn adjust(&self) -> Result<(), String> {
        let info = self.info_or_make().await?;
        let (wanted, has) = (self.config(), info.config);
        let mut config = has.clone();
        // What is not limited may stay so.
        if has.max_messages_per_subject > 0 {
            config.max_messages_per_subject = has.max_messages_per_subject.max(wanted.max_messages_per_subject);
        }
        if !has.max_age.is_zero() {
            config.max_age = has.max_age.max(wanted.max_age);
        }
        config.duplicate_window = has.duplicate_window.max(wanted.duplicate_window);
        config.republish = wanted.republish;
        if config == has {
            return Ok(());
        }
        self.context.update_stream(config).await.map(drop).map_err(|error| error.to_string())
    }

    fn config(&self) -> Config {
        Config {
            name: self.name.clone(),
            description: Some("Messages of pushbridge".to_owned()),
            subjects: vec![format!("{}.ch.>", self.prefix)],
            max_messages_per_subject: self.wanted.per_channel,
            max_age: self.wanted.age,
            duplicate_window: self.wanted.window,
            republish: Some(Republish {
                source: format!("{}.ch.>", self.prefix),
                destination: format!("{}.live.>", self.prefix),
                headers_only: false,
            }),
            allow_direct: true,
            ..Config::default()
        }
    }

    /// The number of the channel's newest message, as the stream's leader knows it.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn newest(&self, channel: &ChannelName) -> Result<Option<u64>, String> {
        let newest = newest_of(&self.stream, &self.subject(channel)).await.map_err(|error| error.to_string())?;
        Ok(newest.map(|message| message.sequence))
    }

    /// How many messages of the channel there are.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn count(&self, channel: &ChannelName) -> Result<usize, String> {
        count_of(&self.stream, &self.subject(channel)).await.map_err(|error| error.to_string())
    }

    /// Reads the channel's messages after a number, at least up to `newest`; of them, keeps what the policy keeps.
    ///
    /// # Errors
    /// When not all could be read.
    pub async fn read(
        &self,
        channel: &ChannelName,
        after: u64,
        newest: u64,
        policy: &ChannelPolicy,
    ) -> Result<History, String> {
        let config = pull::Config {
            deliver_policy: match after {
                0 => DeliverPolicy::All,
                _ => DeliverPolicy::ByStartSequence { start_sequence: after + 1 },
            },
            ack_policy: AckPolicy::None,
            replay_policy: ReplayPolicy::Instant,
            filter_subject: self.subject(channel),
            inactive_threshold: Duration::from_secs(10),
            num_replicas: 1,
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = self.stream.create_consumer(config).await.map_err(|error| error.to_string())?;
        let kept = self.read_all(&consumer, channel, policy).await;
        // It would vanish by itself, a little later.
        let name = consumer.cached_info().name.clone();
        let deleted = self.stream.delete_consumer(&name).await;
        let (last, history) = kept?;
        if let Err(error) = deleted {
            tracing::debug!(%error, "a reader of the stream was not removed");
        }
        if last < newest {
            return Err(format!("the history ends at {last}, before {newest}"));
        }
        Ok(history)
    }

    async fn read_all(
        &self,
        consumer: &jetstream::consumer::Consumer<pull::Config>,
        channel: &ChannelName,
        policy: &ChannelPolicy,
    ) -> Result<(u64, History), String> {
        let mut pending = consumer.cached_info().num_pending as usize;
        let (mut last, mut keep) = (0, Keep::new(policy));
        while pending > 0 {
            let count = pending.min(PAGE_MESSAGES_MAX);
            let page = consumer.batch().max_messages(count).expires(ANSWER_TIMEOUT).messages().await;
            let mut page = page.map_err(|error| error.to_string())?;
            let mut came = 0;
            while let Some(message) = page.next().await {
                let message = message.map_err(|error| error.to_string())?;
                let info = message.info().map_err(|error| error.to_string())?;
                let published_ms = (info.published.unix_timestamp_nanos() / 1_000_000) as u64;
                last = info.stream_sequence;
                keep.push(last, published_ms, decode(channel, &message.payload));
                came += 1;
            }
            if came < count {
                return Err("the history came only in part".to_owned());
            }
            pending -= came;
        }
        Ok((last, keep.into_history()))
    }

    /// Stores a message, on condition that the channel's newest one has the `expected` number.
    ///
    /// # Errors
    /// When it was not stored, or it is not known whether it was.
    pub async fn store(&self, message: &Message, expected: Option<u64>) -> Result<Stored, String> {
        let now = clock::unix_ms().to_string();
        let mut publish =
            PublishMessage::build().payload(envelope::encode(message).into()).header(PUBLISHED_AT, now.as_str());
        if let Some(id) = &message.id {
            publish = publish.message_id(message_id(&message.channel, id.as_str()));
        }
        if let Some(expected) = expected {
            publish = publish.expected_last_subject_sequence(expected);
        }
        match self.send(self.subject(&message.channel), publish).await {
            Ok((number, false)) => Ok(Stored::At(number)),
            Ok((number, true)) => Ok(Stored::Duplicate(number)),
            Err(error) => match error.kind() {
                PublishErrorKind::WrongLastSequence => Ok(Stored::Moved),
                PublishErrorKind::TimedOut => Err("it did not answer in time, so it may still be published".to_owned()),
                PublishErrorKind::StreamNotFound => Err("the stream is not there".to_owned()),
                PublishErrorKind::MaxPayloadExceeded => {
                    Err("the message is over the server's max_payload; raise that, or lower max_message_bytes"
                        .to_owned())
                }
                _ => Err(error.to_string()),
            },
        }
    }

    /// Stores the present mark, unless another instance has.
    ///
    /// # Errors
    /// When it was not stored.
    pub async fn mark(&self) -> Result<(), String> {
        let slot = clock::unix_ms() / MARK_EVERY_MS;
        let publish = PublishMessage::build().message_id(format!("mark.{slot}"));
        // No channel's subject has a `$`.
        let sent = self.send(format!("{}.ch.$mark.{slot}", self.prefix), publish).await;
        sent.map(drop).map_err(|error| error.to_string())
    }

    async fn send(&self, subject: String, publish: PublishMessage) -> Result<(u64, bool), PublishError> {
        let ack = self.context.send_publish(subject, publish).await?.await?;
        Ok((ack.sequence, ack.duplicate))
    }
}

/// Reads a message; what was stored by something else is passed over, and told.
pub fn decode(channel: &ChannelName, payload: &[u8]) -> Option<Message> {
    match envelope::decode(channel.clone(), payload) {
        Ok(message) => Some(message),
        Err(error) => {
            tracing::warn!(channel = %channel, %error, "a message of the bus can't be read");
            None
        }
    }
}

fn facts_of(info: &Info) -> Facts {
    let per_channel = info.config.max_messages_per_subject;
    Facts {
        epoch: (info.created.unix_timestamp_nanos() / 1_000_000) as u64,
        first: info.state.first_sequence,
        last: info.state.last_sequence,
        per_channel_max: u64::try_from(per_channel).ok().filter(|max| *max > 0),
    }
}

/// Ids are per channel, and may hold what a header may not: the server gets a digest of both.
fn message_id(channel: &ChannelName, id: &str) -> String {
    use base64::Engine;
    let text = [channel.as_str().as_bytes(), b"\0", id.as_bytes()].concat();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(digest)
}

/// The newest messages within a policy.
struct Keep {
    messages: VecDeque<(u64, Message)>,
    bytes: usize,
    passed_over: (u64, u64),
    messages_max: usize,
    bytes_max: usize,
    oldest_ms: u64,
}

impl Keep {
    fn new(policy: &ChannelPolicy) -> Self {
        Self {
            messages: VecDeque::new(),
            bytes: 0,
            passed_over: (0, 0),
            messages_max: policy.history_messages_max.max(crate::hub::log::LIVE_WINDOW_MESSAGES),
            bytes_max: policy.history_bytes_max,
            oldest_ms: clock::unix_ms().saturating_sub(policy.history_age_ms_max),
        }
    }

    fn push(&mut self, number: u64, published_ms: u64, message: Option<Message>) {
        let Some(message) = message.filter(|_| published_ms >= self.oldest_ms) else {
            return self.pass_over(number);
        };
        self.bytes += message.size_bytes();
        self.messages.push_back((number, message));
        while self.messages.len() > 1 && (self.messages.len() > self.messages_max || self.bytes > self.bytes_max) {
            let Some((number, oldest)) = self.messages.pop_front() else { break };
            self.bytes -= oldest.size_bytes();
            self.pass_over(number);
        }
    }

    fn pass_over(&mut self, number: u64) {
        self.passed_over = (self.passed_over.0 + 1, number.max(self.passed_over.1));
    }

    fn into_history(self) -> History {
        History { messages: self.messages.into(), passed_over: self.passed_over }
    }
}
