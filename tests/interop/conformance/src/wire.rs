//! Messages behind their length, as the runner writes and reads them.

use std::io;

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The runner's largest message is a few times the largest test payload.
const MESSAGE_MAX: u32 = 64 << 20;

/// Reads one message; none at the end of the input.
///
/// # Errors
///
/// If the input breaks off, or is not such a message.
pub async fn read<M: Message + Default>(
    input: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<M>> {
    let length = match input.read_u32().await {
        Ok(length) if length <= MESSAGE_MAX => length,
        Ok(length) => return Err(io::Error::other(format!("a message of {length} bytes"))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut message = vec![0; length as usize];
    input.read_exact(&mut message).await?;
    M::decode(message.as_slice())
        .map(Some)
        .map_err(io::Error::other)
}

/// Writes one message.
///
/// # Errors
///
/// If the output is closed.
pub async fn write(
    output: &mut (impl AsyncWrite + Unpin),
    message: &impl Message,
) -> io::Result<()> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).map_err(io::Error::other)?;
    output.write_u32(length).await?;
    output.write_all(&message).await?;
    output.flush().await
}
