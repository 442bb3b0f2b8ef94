require("tiny-http").listen(process.env.PORT);
