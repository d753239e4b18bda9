import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * A generation and edits with the JDK's HttpClient as it comes, which offers an upgrade to HTTP/2 with its first request.
 * Arguments: base URL, key, model, a PNG. Prints one JSON object: each case with the status and the body of its answer.
 */
public class Images {
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static String base;
    static String key;

    public static void main(String[] arguments) throws Exception {
        base = arguments[0];
        key = arguments[1];
        String json = "{\"model\": \"" + arguments[2] + "\", \"prompt\": \"a cat\", \"size\": \"1024x1024\"}";
        byte[] form = form(arguments[2], Files.readAllBytes(Path.of(arguments[3])));
        String multipart = "multipart/form-data; boundary=XX";

        System.out.println("{");
        tell("generation", post("/images/generations", "application/json", BodyPublishers.ofString(json)), ",");
        tell("edit", post("/images/edits", multipart, BodyPublishers.ofByteArray(form)), ",");
        // Without a length, so in chunks; each with a connection of its own, so with an offer of its own.
        BodyPublisher chunks = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(form));
        tell("edit in chunks", post(HttpClient.newHttpClient(), "/images/edits", multipart, chunks), ",");
        BodyPublisher text = BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(json.getBytes()));
        tell("generation in chunks", post(HttpClient.newHttpClient(), "/images/generations", "application/json", text), "");
        System.out.println("}");
    }

    static byte[] form(String model, byte[] picture) throws Exception {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        String field = "--XX\r\nContent-Disposition: form-data; name=\"%s\"\r\n\r\n%s\r\n";
        out.write((field.formatted("model", model) + field.formatted("prompt", "a dog")).getBytes(StandardCharsets.UTF_8));
        out.write("--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\n".getBytes());
        out.write("Content-Type: image/png\r\n\r\n".getBytes());
        out.write(picture);
        out.write("\r\n--XX--\r\n".getBytes());
        return out.toByteArray();
    }

    static HttpResponse<String> post(String path, String type, BodyPublisher body) throws Exception {
        return post(CLIENT, path, type, body);
    }

    static HttpResponse<String> post(HttpClient client, String path, String type, BodyPublisher body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create(base + path))
            .header("Authorization", "Bearer " + key)
            .header("Content-Type", type)
            .POST(body)
            .build();
        return client.send(request, BodyHandlers.ofString());
    }

    static void tell(String name, HttpResponse<String> answer, String end) {
        String body = answer.body().isEmpty() ? "null" : answer.body();
        System.out.printf("\"%s\": {\"status\": %d, \"body\": %s}%s%n", name, answer.statusCode(), body, end);
    }
}
