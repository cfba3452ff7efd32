"""Uses spark-server as a user of OpenAI's API would, with the official client, unchanged."""

import os
import time

import openai

base_url = os.environ["SPARK_URL"] + "/v1"
client = openai.OpenAI(base_url=base_url, api_key=os.environ["SPARK_USER_KEY"], max_retries=0)
messages = [{"role": "user", "content": "What is a circuit breaker?"}]

models = [model.id for model in client.models.list()]
assert models == ["demo-1"], models

whole = client.chat.completions.create(model="demo-1", messages=messages, temperature=0)
text = whole.choices[0].message.content
assert "What is a circuit breaker?" in text, text
assert whole.choices[0].finish_reason == "stop"
assert whole.usage.total_tokens > 0

raw = client.chat.completions.with_raw_response.create(
    model="demo-1", messages=messages, temperature=0
)
assert raw.headers["cache-status"].startswith("spark; hit"), raw.headers["cache-status"]
assert raw.parse().choices[0].message.content == text

start = time.monotonic()
arrivals, streamed = [], ""
for chunk in client.chat.completions.create(model="demo-1", messages=messages, stream=True):
    arrivals.append(time.monotonic() - start)
    streamed += chunk.choices[0].delta.content or ""
assert streamed == text, streamed
assert arrivals[-1] > 2 * arrivals[0], "the words came all at once"

with_usage = client.chat.completions.create(
    model="demo-1", messages=messages, stream=True, stream_options={"include_usage": True}
)
assert [chunk.usage for chunk in with_usage][-1].total_tokens > 0


def refused(error, **arguments):
    """The client raises the error that its users catch."""
    try:
        arguments = {"model": "demo-1", "messages": messages, **arguments}
        arguments.pop("client", client).chat.completions.create(**arguments)
    except error as caught:
        return caught
    raise AssertionError(f"no {error.__name__}")


assert refused(openai.NotFoundError, model="no-such").code == "model_not_found"
assert refused(openai.BadRequestError, max_tokens=-1).param == "max_tokens"
stranger = openai.OpenAI(base_url=base_url, api_key="nonsense", max_retries=0)
refused(openai.AuthenticationError, client=stranger)

print(f"openai {openai.__version__}: whole, streamed, cached, refused: as its users expect")
