import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;

import static java.nio.charset.StandardCharsets.UTF_8;

/** JDBC. Argument: the URL. Java has no JSON of its own, so the cases come as lines of words: see ../drivers.py. */
public class Jdbc {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, UTF_8);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        List<String> results = new ArrayList<>();
        try (Connection db = DriverManager.getConnection(arguments[0])) {
            for (String line; (line = in.readLine()) != null; ) {
                results.add(done(db, line.split(" ")));
            }
        }
        out.println("[" + String.join(",", results) + "]");
    }

    static String done(Connection db, String[] words) {
        try {
            switch (words[0]) {
                case "begin" -> db.setAutoCommit(false);
                case "commit" -> { db.commit(); db.setAutoCommit(true); }
                case "rollback" -> { db.rollback(); db.setAutoCommit(true); }
                default -> { return "{\"rows\":" + run(db, words) + "}"; }
            }
            return "{\"rows\":[]}";
        } catch (SQLException error) {
            return "{\"refused\":" + quoted(error.getMessage()) + "}";
        }
    }

    static String run(Connection db, String[] words) throws SQLException {
        try (PreparedStatement statement = db.prepareStatement(decoded(words[1]))) {
            for (int place = 1; place < words.length - 1; place++) {
                bind(statement, place, words[place + 1]);
            }
            if (!statement.execute()) {
                return "[]";
            }
            List<String> rows = new ArrayList<>();
            ResultSet found = statement.getResultSet();
            while (found.next()) {
                List<String> cells = new ArrayList<>();
                for (int column = 1; column <= found.getMetaData().getColumnCount(); column++) {
                    cells.add(quoted(found.getString(column)));
                }
                rows.add("[" + String.join(",", cells) + "]");
            }
            return "[" + String.join(",", rows) + "]";
        }
    }

    static void bind(PreparedStatement statement, int place, String word) throws SQLException {
        String value = word.substring(1);
        switch (word.charAt(0)) {
            case 'n' -> statement.setNull(place, Types.VARCHAR);
            case 'i' -> statement.setInt(place, Integer.parseInt(value));
            case 'x' -> statement.setBytes(place, HexFormat.of().parseHex(value));
            default -> statement.setString(place, decoded(value));
        }
    }

    static String decoded(String word) {
        return new String(Base64.getDecoder().decode(word), UTF_8);
    }

    static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder out = new StringBuilder("\"");
        for (char each : text.toCharArray()) {
            out.append(each < ' ' || each == '"' || each == '\\' ? String.format("\\u%04x", (int) each) : each);
        }
        return out.append('"').toString();
    }
}
